"""Data on their way to training: examples as arrays, partitions of a shared set, batch plans, seeds."""
