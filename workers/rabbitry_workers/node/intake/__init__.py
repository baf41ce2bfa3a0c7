"""From queues to lanes: what a node takes, what it refuses, and what it gives back."""
