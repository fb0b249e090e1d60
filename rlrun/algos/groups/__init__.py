"""Algorithms that compare the episodes of a group."""
