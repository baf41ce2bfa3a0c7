"""Other people's libraries that run on Ray. Each program names, in its head, what its user would install."""
