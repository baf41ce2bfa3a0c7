"""What programs call that say how Ray shall move their tensors (`tensor_transport`)."""

from __future__ import annotations

from typing import Any


def wait_tensor_freed(tensor: Any, timeout: float | None = None) -> None:
    """Return when a tensor that a method has returned may be written to again: at once.

    With a `tensor_transport`, Ray leaves the tensor where it is until it is asked for, and who writes to it meanwhile
    changes what others get. Here a result is a copy from the moment in which its method returns.

    Args:
        tensor: what the method returned.
        timeout: seconds to wait at most; as nothing is waited for, it makes no difference.
    """
