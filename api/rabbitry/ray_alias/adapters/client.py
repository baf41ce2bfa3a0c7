"""`ray.util.client`: Ray's protocol for remote drivers, which rabbitry has not: every driver speaks to the servers."""

from __future__ import annotations

from typing import Final


class RayAPIStub:
    """Says that no such connection is there."""

    def is_connected(self) -> bool:
        """Return False."""
        return False

    def is_default(self) -> bool:
        """Return True."""
        return True

    def get_context(self) -> RayAPIStub:
        """Return the connection that this thread uses: none."""
        return self


ray: Final = RayAPIStub()


def num_connected_contexts() -> int:
    """Return 0."""
    return 0
