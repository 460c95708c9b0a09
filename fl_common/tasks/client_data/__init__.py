"""A client's own data: files and folders, read and checked."""
