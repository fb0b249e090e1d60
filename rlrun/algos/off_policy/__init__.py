"""Methods that learn values of what a replay buffer holds."""
