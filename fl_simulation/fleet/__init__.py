"""A simulated fleet: speeds, hours and drop-outs, on a clock that costs no time."""
