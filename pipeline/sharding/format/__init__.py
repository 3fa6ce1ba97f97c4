"""The format of a shards artifact: index, shard locations, columns. All that loading imports of sharding."""
