"""The stage join-columns: joins a table to the samples of a shards artifact by key."""
