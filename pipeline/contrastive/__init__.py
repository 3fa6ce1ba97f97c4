"""Aligning images with text: the loss, the ontology, and the curriculum that composes batches from it."""
