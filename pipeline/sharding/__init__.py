"""Sharding: a data set of any layout becomes WebDataset shards, an index and a data card.

Packages, from the top: stage, run_modes; mixture, inspection, deltas; card; joining, writing; sources; format. Each
imports only those below it."""
