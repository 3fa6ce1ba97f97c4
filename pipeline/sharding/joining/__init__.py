"""The stage join-columns: a table is joined to the samples of a shards artifact by their keys."""
