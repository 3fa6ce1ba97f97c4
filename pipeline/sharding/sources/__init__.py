"""Data sets that can be read, a file each, and the listings and tables they share."""
