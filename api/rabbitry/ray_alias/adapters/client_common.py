"""`ray.util.client.common`: types of Ray's protocol for remote drivers, of which there is never an instance here."""

from __future__ import annotations


class ClientObjectRef:
    """A ref of a remote driver."""


class ClientActorRef:
    """An actor of a remote driver."""


class ClientActorHandle:
    """A handle of a remote driver."""


class ClientActorClass:
    """An actor class of a remote driver."""


class ClientRemoteFunc:
    """A function of a remote driver."""


class ClientRemoteMethod:
    """A method of a remote driver's actor."""
