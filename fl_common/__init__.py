"""What clients and servers must agree on: settings, tasks, partitions, arrays, batch plans and errors."""

__version__ = "0.1.0"
