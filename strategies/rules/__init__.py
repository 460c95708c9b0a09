"""Robust rules over NumPy arrays by name: they know neither Flower nor Keras. The robust strategies call them."""
