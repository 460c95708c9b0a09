"""Keys, tokens, secret files; what may leave a client, and what may be shown of what came from outside."""
