"""Checks tars, and an artifact's index against its tars, for problems that affect readers of shards."""
