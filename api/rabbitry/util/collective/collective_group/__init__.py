"""What a backend of collective operations is made of."""
