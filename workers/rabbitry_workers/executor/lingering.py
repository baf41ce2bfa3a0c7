"""What keeps an executor that would leave: others still want what only it can give.

The results of what its tasks submitted come to it, for it owns them; and the actors that its tasks made live as long as
it does. Objects are no reason to stay: they are in the store, and remain there for those who hold them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rabbitry_broker.errors import RabbitryBrokerError

if TYPE_CHECKING:
    from rabbitry.client import Client

LOOK_SECONDS: Final = 0.05  # between two looks at first; later ever more
LOOK_SECONDS_MAX: Final = 1.0


def is_wanted(client: Client) -> bool:
    """True if something depends on this process; asks the store if its tasks have made actors."""
    try:
        client.collect()
        return client.in_flight > 0 or client.actors.any_alive()
    except RabbitryBrokerError:
        return True  # the store is away
