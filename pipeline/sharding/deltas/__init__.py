"""Deltas: new and changed samples of a source since its base was sharded, and compaction into one artifact."""
