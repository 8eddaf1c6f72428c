"""Embeddings: images and texts to vectors, and vectors to files."""
