"""Simulation: the same federation in one process. The server's code is unchanged; clients are trained in bulk."""
