"""Imports external weights as artifacts: the store contains a run's initial weights under a key of their content."""
