"""What all nodes are; apart, so that the scanner can be asked for without them."""


class DAGNodeBase:
    """Base of all nodes."""
