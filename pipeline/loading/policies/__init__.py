"""Sampling policies: the samples of each step's global batch. One file for each policy."""
