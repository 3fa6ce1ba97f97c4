"""What a run did and found, as one HTML file that needs nothing else, and as a few lines of Markdown."""
