"""Storage: one small protocol over a local folder or an S3 bucket."""

from pipeline.storage.base import ObjectInfo, Storage, open_storage

__all__ = ["ObjectInfo", "Storage", "open_storage"]
