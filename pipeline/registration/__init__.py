"""Registration: a model becomes a registry version, and if it passes the gate the champion that services load."""
