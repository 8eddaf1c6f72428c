"""Embed images and texts as vectors, and write vectors to files."""
