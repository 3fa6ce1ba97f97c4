"""What a model is worth: measures, their uncertainty, and whether one model beats another.

Every accuracy comes with what chance and the most frequent answer would have scored on the same
samples, because a number alone says nothing.
"""
