"""From listed items to shards: reading and checking, duplicates, splits, order, tars, index."""
