"""Loading: from an index and a policy to batches of pixels, identical for any number of workers."""
