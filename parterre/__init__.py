"""Whole federations, put together: as real processes on this machine. Commands parse, call this, and show."""
