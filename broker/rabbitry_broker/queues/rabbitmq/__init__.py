"""The RabbitMQ engine: durable queues, persistent messages, publisher confirms, by pika."""
