"""The loggers that a session sets up: `rabbitry`, and `ray` where `import ray` means rabbitry (`ray_alias.logger`)."""

from __future__ import annotations

OWN = "rabbitry"

configured: list[str] = [OWN]
"""Their names."""
