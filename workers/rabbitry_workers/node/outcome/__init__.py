"""What becomes of tasks: results that are committed, dependants that are published, deliveries that are settled."""
