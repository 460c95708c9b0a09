"""Local training: from a client's data and a model's weights to an update."""
