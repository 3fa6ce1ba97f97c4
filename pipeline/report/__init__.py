"""The report of a run, as one self-contained HTML file and as a few lines of Markdown."""
