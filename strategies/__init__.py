"""Strategies by name: the registry, and any other Flower Strategy by import path. Free of TensorFlow until a step."""

from strategies.registry import BUILT_IN, argument_names, make

__all__ = ["BUILT_IN", "argument_names", "make"]
