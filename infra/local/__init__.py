"""One machine: the real servers as child processes, without containers."""
