"""Exports of a model: written, loaded again and held against the model on samples before they are handed out."""
