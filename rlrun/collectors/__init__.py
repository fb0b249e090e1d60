"""What an algorithm gets its data from."""
