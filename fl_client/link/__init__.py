"""The resident node: its connection to the server, its identity, its enrolment."""
