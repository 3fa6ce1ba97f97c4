"""The zoo, one row per model and one file per family: importing it registers all models without their modules."""

from model_defs.catalogue import inception, language_image, residual, sequential, text, transformers

__all__ = ["inception", "language_image", "residual", "sequential", "text", "transformers"]
