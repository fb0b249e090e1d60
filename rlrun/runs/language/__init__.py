"""Runs of language: how responses are judged and shown, and what goes wrong with them."""
