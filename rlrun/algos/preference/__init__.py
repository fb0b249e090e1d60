"""Algorithms that learn from examples, comparisons or a teacher, and not from an advantage."""
