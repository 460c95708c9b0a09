"""The command `fl`: one file a command."""
