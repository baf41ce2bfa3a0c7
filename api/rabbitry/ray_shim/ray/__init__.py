"""Reaches rabbitry in place of Ray: `rabbitry.as_ray` puts the directory above on PYTHONPATH for child processes."""

import sys

# Out of the way, or it would be what the finder of `install` answers for.
del sys.modules["ray"]

from rabbitry.as_ray import install  # noqa: E402

install()
