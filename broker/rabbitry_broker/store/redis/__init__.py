"""The wire to Redis: connections, addresses, which server is the one. For the store and the embedded queues alone."""
