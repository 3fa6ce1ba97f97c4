"""Loading: from an index and a policy to batches of pixels, the same on any number of workers."""
