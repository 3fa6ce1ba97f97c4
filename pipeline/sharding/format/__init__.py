"""The format of a shards artifact: index, shard locations, columns. Loading imports nothing else of sharding."""
