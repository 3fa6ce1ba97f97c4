"""Deltas: what is new in a source since its base was sharded, and compaction into one artifact."""
