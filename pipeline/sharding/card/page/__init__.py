"""The data card as a page: what is in a shards artifact, with pictures, in one file that needs nothing else."""
