"""What goes on in the background of a client: one thread, and the steps of its rounds."""
