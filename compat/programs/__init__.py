"""Each runs on a real Ray as it is, and prints lines that begin with RESULT."""
