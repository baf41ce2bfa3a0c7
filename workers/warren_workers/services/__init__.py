"""Background services of a node that look after the whole cluster."""
