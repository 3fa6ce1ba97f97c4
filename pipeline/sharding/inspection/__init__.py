"""Checks, counts and previews of shards, those of Tutelage or any tars."""
