"""A run's policy as it is used elsewhere: in Python, as a file, as the episodes that it plays."""
