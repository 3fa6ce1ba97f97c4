"""The zoo, a row a model and a file a family: importing this package registers them all and imports none of them."""

from model_defs.catalogue import inception, language_image, residual, sequential, text, transformers

__all__ = ["inception", "language_image", "residual", "sequential", "text", "transformers"]
