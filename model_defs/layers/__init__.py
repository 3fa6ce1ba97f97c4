"""Layers that two or more architectures share, one idea per file."""
