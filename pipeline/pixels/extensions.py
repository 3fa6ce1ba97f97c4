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

RAW_SUFFIXES = frozenset(
    {
        *(".dng", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".cr2", ".cr3", ".crw", ".orf", ".rw2", ".raf", ".pef"),
        *(".srw", ".rwl", ".iiq", ".3fr", ".erf", ".kdc", ".mrw", ".x3f"),
    }
)
"""A raw file of a camera. Most begin as a TIFF, whose first page is a thumbnail: it must not be read as the photo."""

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
"""A photo in a format that is not read, if its content is not that of another format."""
