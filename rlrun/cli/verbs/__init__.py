"""The commands beside training, a file each: what may stand behind it, and what it does."""
