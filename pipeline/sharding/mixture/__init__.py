"""The stage mix-datasets: one index over several shards artifacts; copies no image."""
