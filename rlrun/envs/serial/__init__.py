"""Gymnasium environments, stepped one after the other in this process."""
