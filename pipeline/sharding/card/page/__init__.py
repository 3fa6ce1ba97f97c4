"""The data card as one self-contained HTML file, with pictures."""
