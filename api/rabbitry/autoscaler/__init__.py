"""What programs tell whoever starts and stops nodes; see `rabbitry.autoscaler.sdk`."""

from __future__ import annotations

from rabbitry.autoscaler import sdk

__all__ = ["sdk"]
