"""The stage mix-datasets: several shards artifacts under one index; no image is copied."""
