"""Models that read and write tokens."""
