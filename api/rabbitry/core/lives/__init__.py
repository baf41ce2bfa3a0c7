"""The life of objects and of the client itself, and what the store is told of both."""
