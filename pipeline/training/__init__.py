"""Training: one loop for every objective, run in process or by Ray Train."""
