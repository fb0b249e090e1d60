"""rlrun: reinforcement-learning experiments from one command line."""

__version__ = "0.1.0"
