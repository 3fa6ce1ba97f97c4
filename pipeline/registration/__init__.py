"""Registration: a model becomes a registry version, passes the gate or not, and serves by its alias."""
