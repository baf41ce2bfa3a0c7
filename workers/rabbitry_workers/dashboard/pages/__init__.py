"""The pages, a module for each kind of thing. Each has `add(board)`, which registers its routes."""
