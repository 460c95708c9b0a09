"""A run's model as a file: the one it begins with, the one it leaves, its exports."""
