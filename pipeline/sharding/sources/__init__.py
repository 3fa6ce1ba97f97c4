"""The sources, one module each, and the listings and table readers that they share."""
