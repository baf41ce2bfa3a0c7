"""The embedded engine: queues on Redis streams, for programs that have no RabbitMQ."""
