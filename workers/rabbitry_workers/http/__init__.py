"""The HTTP service: REST API, jobs, metrics and pages of a cluster. It keeps no state, and no work depends on it."""
