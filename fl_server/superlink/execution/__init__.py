"""Runs' side of the SuperLink: submitted, bundled, executed, supervised."""
