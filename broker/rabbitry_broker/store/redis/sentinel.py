"""Redis Sentinel: which server is the master now.

A `redis+sentinel://` address names the Sentinels and a service. Every (re)connection asks them first, so a failover is
followed as soon as the old connection breaks. What is authoritative is the server's own word: one that says in its
greeting that it is a replica is not used (see `Connection`).
"""

from __future__ import annotations

from rabbitry_broker.errors import ConnectError
from rabbitry_broker.store.redis.address import Address
from rabbitry_broker.store.redis.asking import ask_each


def find_master(address: Address, timeout: float) -> tuple[str, int]:
    """Return host and port of the master of a service, as the first Sentinel that knows it says.

    Args:
        address: of Sentinels.
        timeout: seconds for all of them together.

    Raises:
        ConnectError: no Sentinel answers, or none knows the service.
    """
    options = address.options
    credentials = (options.get("sentinel_username", ""), options.get("sentinel_password", ""))
    question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service)
    problems: list[str] = []
    answered = False
    for answer in ask_each(address, address.sentinels, question, credentials=credentials, timeout=timeout):
        if isinstance(answer.reply, list) and len(answer.reply) == 2:
            return answer.reply[0].decode(), int(answer.reply[1])
        answered = answered or answer.reached
        problems.append(str(answer._replace(reply=answer.reply or "knows no such service")))
    if answered:
        raise ConnectError(
            address.url,
            f"no Sentinel has a master for the service {address.service!r} ({'; '.join(problems)})",
            "Name the service as `sentinel monitor` does: redis+sentinel://host:26379/SERVICE.",
        )
    raise ConnectError(
        address.url,
        f"no Sentinel answers ({'; '.join(problems)})",
        "Check the addresses, and that Sentinels run there.",
    )
