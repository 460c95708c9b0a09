"""The adapter for strategies that are not ours."""
