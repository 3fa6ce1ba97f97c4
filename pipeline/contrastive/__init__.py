"""Contrastive training on image-text pairs: the loss, the ontology, and the curriculum that draws batches from it."""
