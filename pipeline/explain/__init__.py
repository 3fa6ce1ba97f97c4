"""Explanations of a model's output on images: one method per file; `explanations` chooses the one that fits."""
