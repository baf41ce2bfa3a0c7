"""Every order in which threads may run, or events come, as far as chance finds it: see `scheduler`, `happening`.

| what is explored | where | how |
|---|---|---|
| inbox, values, callbacks, outbox, flight, references | `test_client` | threads |
| streams, what generators read from | `test_streams` | threads |
| lifetimes | `test_lifetimes` | threads |
| supervisors of jobs | `test_job_supervisor` | threads |
| dispatcher, pool, nesting, recall, crashes, ending | `test_node` | events |
| custody, settling | `test_custody` | events |
| calls of actors on their node | `test_hosted_calls` | events |
| environments of a node, their leases on the cache | `test_environments` | events |

All parts of a node together get events in random order in `tests/workers/node/test_random_events.py`.

What has a lock or runs on several threads, and is not explored here, is tried by its own tests and under load only
(`tests/chaos`, the programs of `tests/fuzz`):

| part | why not |
|---|---|
| `session`, `ServiceThread`, `Doorbell` | start and end of a process's only client |
| `Exports`, `Environments` of the client | one lock around all that they do |
| publishers, `Link`, `Loop` | their waits are those of sockets and of RabbitMQ |
| `Server`, connections, `Chunks`, peers | the same, of Redis and of other nodes |
| files of values: `Pool`, `Recycling`, `Mappings`, claims | between processes; locks of the kernel decide |
| `Committer`, `Channel`, streams, runners and durable state of an executor | user code runs on their threads |
| measures, marks, logs | what is lost or doubled there decides nothing |
| pools of `util`, dashboard | nothing but the public API is under them |

What it cannot find: an order in which a fake differs from what it stands for; two processes; the order of what one
instruction of the interpreter does; anything in a module that is not watched.
"""
