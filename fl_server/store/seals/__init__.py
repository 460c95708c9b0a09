"""Whose run it is, and whether its files are what was written."""
