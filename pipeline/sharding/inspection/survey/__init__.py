"""What is in shards, ours or foreign: counted, and shown."""
