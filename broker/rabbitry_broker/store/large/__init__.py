"""Large values: pickle 5 with out-of-band buffers, in shared memory of this host, in chunks in Redis, or in files.

HOT PATH (`benchmarks/`: `put_64mib`, `get_64mib`, `task_64mib_argument`, `task_8mib_result`).

| engine | a value is written to | shared memory is |
|---|---|---|
| embedded | shared memory (one host); Redis where that is too small | the only copy |
| cluster | shared memory, if a node of this host looks after it | the only copy, until `copies` makes one in Redis |
| cluster, else | Redis | a cache of what this host wrote or read |

What another host made is taken from a node there if one can be reached (`peers`), else from Redis, by one process of a
host, however many want it. It is kept in shared memory, too; all readers of a host map the same pages. What fits in
neither goes to `spill_url`; the embedded engine has a directory of its session for that by default. Every attempt to
store a value has a *token* (the writer's process id and a random number), which is in the names of its buffers and in
the record: a second run of the same task disturbs nothing, and a buffer whose token is not that of the object's record
is an orphan (`sweep`).

| module     | what it knows                                                          |
|------------|------------------------------------------------------------------------|
| `values`   | `LargeObjects`: the parts below, put together; letting go              |
| `writing`  | where there is room, in which order                                    |
| `reading`  | from where a value can be had, and what is kept of it here             |
| `unkept`   | what this host alone has, and copying it (`store.copies`)              |
| `sweeping` | files that no record needs                                             |
| `places`   | shared memory, Redis, files: where buffers may be                      |
| `tokens`   | names of buffers                                                       |
"""

from __future__ import annotations

from rabbitry_broker.store.copies import ObjectLost
from rabbitry_broker.store.large.values import LargeObjects
from rabbitry_broker.store.large.writing import copies_are_eager

__all__ = ["LargeObjects", "ObjectLost", "copies_are_eager"]
