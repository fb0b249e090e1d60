"""Data sets of the user's own: files of JSON, one object a line."""
