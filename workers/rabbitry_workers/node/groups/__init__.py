"""Placement groups on a node: planned for all nodes by one of them, held by each, and what runs inside."""
