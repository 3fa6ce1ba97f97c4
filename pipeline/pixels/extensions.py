"""File name extensions of the supported image formats, for listings that do not open each file."""

from __future__ import annotations

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
        *(".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".qoi"),
        *(".avif", ".avifs", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    }
)
"""A file with one of these is listed as an image; if it is not one, that is reported when it is read."""

OTHER_SUFFIXES = frozenset(
    {
        *(
            ".txt",
            ".md",
            ".rst",
            ".log",
            ".html",
            ".htm",
            ".xml",
            ".json",
            ".jsonl",
            ".ndjson",
            ".yaml",
            ".yml",
            ".toml",
        ),
        *(".csv", ".tsv", ".parquet", ".arrow", ".py", ".ipynb", ".sh", ".ini", ".cfg", ".cls"),
    }
)
"""A file with one of these is not an image, and is not opened."""
