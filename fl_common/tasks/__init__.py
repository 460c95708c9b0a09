"""Tasks: what is learned, from which data. Built-in ones, a user's own, and a client's own files."""
