"""Writes that are whole or absent, waits for a full disk, and one process at a time."""
