"""Algorithms that follow the policy gradient, with critics or without."""
