"""Looking for actors by name."""

from __future__ import annotations

from rabbitry import current
from rabbitry.outages import with_public_errors


@with_public_errors
def list_named_actors(all_namespaces: bool = False) -> list[str] | list[dict[str, str]]:
    """Return the names of the living named actors.

    Args:
        all_namespaces: those of every namespace, as dictionaries with `name` and `namespace`; else only names, of the
            session's own namespace.
    """
    found = current.client().actors.list_named(all_namespaces)
    if all_namespaces:
        return [{"namespace": namespace, "name": name} for namespace, name in found]
    return [name for _, name in found]
