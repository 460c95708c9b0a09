"""Flower's internals on the server, all of them: its SuperLink, and what this project changes in it."""
