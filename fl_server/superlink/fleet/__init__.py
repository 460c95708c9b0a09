"""Clients' side of the SuperLink, in its process: who is there, what they leave and take away."""
