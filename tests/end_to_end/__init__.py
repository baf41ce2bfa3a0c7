"""Programs as a user writes them, on real servers."""
