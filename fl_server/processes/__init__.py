"""What the server's processes need around their work: ports, clocks, logs."""
