"""Helpers that several folders of tests share: servers, clients, grids, models and tasks, real and small."""
