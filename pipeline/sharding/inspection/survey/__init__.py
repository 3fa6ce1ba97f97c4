"""Statistics and previews of shards, of Tutelage or foreign."""
