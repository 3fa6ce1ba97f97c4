"""Imports external weights as artifacts: a run's initial weights are in the store, under a key of their content."""
