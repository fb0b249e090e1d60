"""The replay buffer: its rows, who keeps them, and which are drawn how often."""
