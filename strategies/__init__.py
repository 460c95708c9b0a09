"""Strategies by name: the registry, and any other Flower Strategy by import path. Free of TensorFlow until a step."""

from strategies.registry import BUILT_IN, argument_names, file_of, find, make, parameters

__all__ = ["BUILT_IN", "argument_names", "file_of", "find", "make", "parameters"]
