"""A client's dealings with actors: creating, calling, finding, ending them."""
