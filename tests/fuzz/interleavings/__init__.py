"""Every order in which threads may run, as far as chance finds it: see `scheduler`."""
