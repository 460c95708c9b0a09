"""The engine: a round's clients trained in bulk."""
