"""Algorithms on tables: one number for each state or each action of it."""
