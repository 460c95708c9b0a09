"""A server: the round loop, the run store, observers, and the supervised SuperLink."""
