"""What looks after something every so often, each with the node and the one port that it uses."""
