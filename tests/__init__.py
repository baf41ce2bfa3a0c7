"""Tests: real servers, real processes; `servers` starts the servers, `conftest` hands them out."""
