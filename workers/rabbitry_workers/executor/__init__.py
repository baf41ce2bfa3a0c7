"""The processes that run user code, and the template they are forked from."""
