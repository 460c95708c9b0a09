"""Flower's grid over gRPC, without its copies and its waits."""
