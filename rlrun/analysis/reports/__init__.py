"""A comparison as tables, pictures, a page and files."""
