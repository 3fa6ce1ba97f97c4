"""Distillation: a student learns from a frozen teacher, which is an exported model."""
