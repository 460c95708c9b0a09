"""Flower's own simulation: its command, its app folders, Ray."""
