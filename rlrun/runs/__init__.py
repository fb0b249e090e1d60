"""The run: its state, its loop's verbs, its files."""
