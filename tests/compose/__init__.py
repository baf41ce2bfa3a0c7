"""The cluster of docker-compose.yml, tried for real: `make compose-test`. Not part of `make test`."""
