"""Training: one loop, run in process or by Ray Train, for every objective."""
