"""Checks, statistics and previews of shards: those of Tutelage, and any other tars."""
