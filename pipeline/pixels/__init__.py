"""Decoding images: the supported formats, and the definition of their pixels."""
