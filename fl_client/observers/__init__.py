"""Who watches a client: health probes and Prometheus."""
