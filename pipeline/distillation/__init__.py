"""Distillation: a student is trained on the outputs of a frozen teacher, which is an exported model."""
