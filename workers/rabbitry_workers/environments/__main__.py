"""`python -m rabbitry_workers.environments DESCRIPTOR`: the child process that makes an environment ready."""

from __future__ import annotations

import sys

from rabbitry_workers.environments.build import main

sys.exit(main(int(sys.argv[1])))
