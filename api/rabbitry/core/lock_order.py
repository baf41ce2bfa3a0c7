"""The order in which the locks of a client are taken. Nobody who holds one takes another one further up.

| lock | held | over |
|---|---|---|
| `session._lock` | while a session starts or ends | all below |
| `Outbox._flush_lock` | while what waits is sent, in its order | all below |
| `Lifetimes.lock` | while handles and what the store knows of them change together | all below |
| `Inbox._leader` | by the thread that reads the inbox; only ever tried, never waited for | all below |
| `Exports._lock`, `Environments._lock` | while a function or an environment is stored or let go of | the store |
| `Events._lock`, `StoredMeasures._sending` | while events or measurements are sent | the store |
| `Directory._lock` | while it is read where nodes serve their values | the store |
| locks of the publisher and its loop | a message is sent, a confirm is read | the store |
| locks of the store, its connection, its files and its readers of other hosts | a command and its reply | |

and the leaves, under which nothing else is taken: `References.lock`, `Flight.lock`, `Inbox._changed`,
`Callbacks._lock`, `Measures._lock`, `ServiceThread._start_lock`.

Three rules follow, which the order alone does not show:

- Nothing that sends (`Outbox.flush`, `Outbox.add...`, `get`, `wait`) is called under `Lifetimes.lock`, so not by what a
  full store calls to get room (`ObjectStore.on_full`) either. An actor whose last handle went is noted there
  (`ending`), and told by whoever holds no lock (`ActorEnds.send`).
- Code of the user never runs under a lock: values are pickled and read outside, callbacks on ready objects run on the
  resolver thread while it does not lead.
- `__del__` may run at any instruction, so under any lock of the same thread. Those of refs, handles and generators
  append to a deque and do nothing else.

`tests/end_to_end/test_lock_order.py` watches every lock that is made, and fails at one that is not in `ORDER`.
"""

from __future__ import annotations

from typing import Final

ORDER: Final[tuple[tuple[str, ...], ...]] = (
    ("session._lock",),
    ("outbox._flush_lock",),
    ("lifetimes.lock",),
    ("inbox._leader",),
    ("exports._lock", "environments._lock", "events._lock", "measures._sending", "directory._lock"),
    # Both are held while an announcement of a queue goes to the store.
    ("publisher._lock", "publisher._changed", "link._changed", "loop.lock"),
    ("server._lock",),
    (
        "chunks._lock",
        "reading._lock",
        "recycling._lock",
        "pool._lock",
        "mappings._lock",
    ),
    (
        "references.lock",
        "flight.lock",
        "inbox._changed",
        "callbacks._lock",
        "measures._lock",
        "thread._start_lock",
        "loop._wake_lock",
    ),
)
"""Names are those of module and attribute. Of locks in one row, none is taken while another one is held."""
