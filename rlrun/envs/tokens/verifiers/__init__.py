"""Programs that say whether a response answers a prompt."""
