"""Networks, distributions, actors and frozen references."""
