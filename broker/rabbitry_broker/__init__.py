"""What drivers and nodes share: wire format, queues, store, settings. Imports neither of the other two packages."""
