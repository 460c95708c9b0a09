"""Keras models as both sides handle them: weights by name, tensors, evaluation, whether data fit."""
