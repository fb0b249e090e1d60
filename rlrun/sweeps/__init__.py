"""Many runs: what a sweep is to have, and worker processes that train its runs side by side."""
