"""A client: local training, and the resident node that keeps it in one long-lived process."""
