"""Sampling policies: which samples make the global batch of a step. One policy a file."""
