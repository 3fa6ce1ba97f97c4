"""The emoji of the demo: packages from npm, drawn by several artists. Needs the extra `demo`."""
