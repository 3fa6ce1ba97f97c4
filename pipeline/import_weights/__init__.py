"""Weights from elsewhere as artifacts: what a run starts from lies in its store, whole, under a key of its content."""
