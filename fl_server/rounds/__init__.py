"""The round loop and its parts, over any Grid and any Flower Strategy."""
