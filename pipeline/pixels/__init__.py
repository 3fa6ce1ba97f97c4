"""Encoded images to pixels: which formats are read, and what the pixels of each are."""
