"""The run store: settings, events and checkpoints of runs, in directories."""
