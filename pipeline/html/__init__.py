"""Self-contained HTML pages: markup, style, embedded pictures."""
