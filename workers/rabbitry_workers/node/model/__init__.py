"""What all parts of a node share: who the node is, what work is, which parts there are to talk to."""
