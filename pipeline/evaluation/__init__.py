"""Evaluation of models: metrics, their uncertainty, and paired tests between two models.

Every accuracy comes with the accuracies of chance and of the most frequent class on the same samples, since
a number alone says nothing.
"""
