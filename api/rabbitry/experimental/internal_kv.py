"""A store of keys and values for all programs of a cluster, under the names by which Ray's libraries use Ray's.

Keys and values are bytes, or text that is encoded as UTF-8; each namespace has its own. Nobody removes a key but
`_internal_kv_del`: they stay for as long as the cluster's Redis has them, as Ray's stay with its head node (those of an
embedded session end with it). Values are sealed with the cluster's secret like all that stands in Redis, so that what a
library unpickles was written by one that may run code here anyway.
"""

from __future__ import annotations

from typing import Any, Final

from rabbitry import current
from rabbitry.arguments import shown, text, wrong_type
from rabbitry.exceptions import RpcError

Text = str | bytes

# What Redis takes as one value (`proto-max-bulk-len`). It closes the connection over more, as if it were away: what
# was refused would be sent time and again. Ray's head node takes as much in one message.
MAX_VALUE_BYTES: Final = 512 * 1024 * 1024

# The code of Ray's error in that case, by which Tune tells that a function holds too much.
_RESOURCE_EXHAUSTED: Final = 8


def _bytes(what: str, value: Text | None) -> bytes:
    if isinstance(value, str):
        return text(what, value).encode()
    # An AssertionError is what libraries meet in Ray.
    assert isinstance(value, bytes), f"{what} must be text or bytes, got {shown(value)}."
    return value


def _place(namespace: Text | None, what: str = "namespace") -> bytes:
    if namespace is not None and not isinstance(namespace, (str, bytes)):
        raise wrong_type(what, namespace, "text or bytes")
    return b"" if namespace is None else _bytes(what, namespace)


def _context(namespace: bytes, key: bytes) -> bytes:
    # Its length before the namespace: no other pair of namespace and key comes to the same.
    return b"kv%d:%s%s" % (len(namespace), namespace, key)


def _internal_kv_initialized() -> bool:
    """True while there is a session."""
    return current.peek() is not None


def _internal_kv_get(key: Text, *, namespace: Text | None = None) -> bytes | None:
    """Return the value of a key; None if there is none.

    Raises:
        AssertionError: a key that is neither text nor bytes.
        TypeError: a namespace that is neither.
        ForgedMessage: the value was not written by this cluster.
    """
    name, place = _bytes("key", key), _place(namespace)
    client = current.client()
    sealed = client.store.call(b"HGET", client.keys.values(place), name)
    return None if sealed is None else client.signer.open(_context(place, name), sealed)


def _internal_kv_exists(key: Text, *, namespace: Text | None = None) -> bool:
    """True if there is the key.

    Raises:
        AssertionError: a key that is neither text nor bytes.
        TypeError: a namespace that is neither.
    """
    name, place = _bytes("key", key), _place(namespace)
    client = current.client()
    return bool(client.store.call(b"HEXISTS", client.keys.values(place), name))


def _internal_kv_put(key: Text, value: Text, overwrite: bool = True, *, namespace: Text | None = None) -> bool:
    """Set the value of a key.

    Args:
        key: the key.
        value: its value.
        overwrite: False to leave a value that is there as it is.
        namespace: of the key.

    Returns:
        True if there was a value before.

    Raises:
        AssertionError: an argument of the wrong type.
        RpcError: the value is larger than what Redis takes, 512 MiB; its `rpc_code` is that of an exhausted resource.
    """
    name, data, place = _bytes("key", key), _bytes("value", value), _place(namespace)
    assert isinstance(overwrite, bool), f"overwrite must be True or False, got {shown(overwrite)}."
    client = current.client()
    sealed = client.signer.seal(_context(place, name), data)
    if len(sealed) > MAX_VALUE_BYTES:
        raise RpcError(
            f"The value of the key {shown(name)} takes {len(sealed)} bytes, and Redis {MAX_VALUE_BYTES} at most: "
            "put() it, and keep what is smaller.",
            _RESOURCE_EXHAUSTED,
        )
    command = b"HSET" if overwrite else b"HSETNX"
    return not client.store.call(command, client.keys.values(place), name, sealed)


def _internal_kv_del(key: Text, *, del_by_prefix: bool = False, namespace: Text | None = None) -> int:
    """Delete a key.

    Args:
        key: the key.
        del_by_prefix: delete all keys that begin with it.
        namespace: of the key.

    Returns:
        How many were deleted.

    Raises:
        AssertionError: a key that is neither text nor bytes.
        TypeError: a namespace that is neither.
    """
    name, place = _bytes("key", key), _place(namespace)
    client = current.client()
    names = _internal_kv_list(name, namespace=place) if del_by_prefix else [name]
    return int(client.store.call(b"HDEL", client.keys.values(place), *names)) if names else 0


def _internal_kv_list(prefix: Text, *, namespace: Text | None = None) -> list[bytes]:
    """Return the keys that begin with a prefix, in no order.

    Raises:
        TypeError: a prefix or namespace that is neither text nor bytes.
    """
    if prefix is None:
        raise wrong_type("prefix", prefix, "text or bytes")
    start, place = _place(prefix, "prefix"), _place(namespace)
    client = current.client()
    return [bytes(name) for name in client.store.call(b"HKEYS", client.keys.values(place)) if name.startswith(start)]


def _internal_kv_reset() -> None:
    """Do nothing: the store is the session's."""


def _pin_runtime_env_uri(uri: str, *, expiration_s: int | None = None) -> None:
    """Do nothing: what a runtime environment brings is kept as long as a job needs it. For Ray's libraries."""


def internal_kv_get_gcs_client() -> Any:
    """Return what reads and writes this store under the name of Ray's client for its head node."""
    from rabbitry.ray_alias.adapters.gcs import GcsClient

    return GcsClient()
