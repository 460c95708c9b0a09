"""Addresses, gRPC channels and TLS handshakes."""
