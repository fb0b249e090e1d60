"""Searching for good values: a study, its trials, and what comes of it."""
