"""Settings: one frozen object for every command, and the small languages in which some of them are written."""
