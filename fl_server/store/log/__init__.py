"""A run's log of events: appended to, marked, read from its ends, rebuilt where it is damaged."""
