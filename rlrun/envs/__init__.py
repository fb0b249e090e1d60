"""Environments: the only part of rlrun that knows about autoreset."""
