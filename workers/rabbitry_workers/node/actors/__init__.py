"""The actors of a node: their hosts, their calls, their ends."""
