"""The data of simulated clients."""
