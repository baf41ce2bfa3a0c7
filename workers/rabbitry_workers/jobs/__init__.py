"""Submitted jobs: a supervisor on some node runs the entrypoint; the records in the store say how far it is."""
