"""Hostile simulated clients, and what they send."""
