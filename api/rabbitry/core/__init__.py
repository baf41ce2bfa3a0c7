"""The client: what a process that submits work and holds refs is made of.

| floor | what |
|---|---|
| `client` | what is known, what goes on in the background, leaving |
| `parts` | builds the parts, ties them together |
| `actors` | creating, calling, finding and ending actors |
| `submit` | from arguments and options to messages on queues; cancelling |
| `resolve` | results that come, and those who wait for them |
| `lives` | handles on objects, and what the store is told of them |
| `service` | the one background thread, and its steps |
| `failures`, `ends`, `unhandled` | stored errors: making, committing and telling of them |
| `flight` | what was submitted and has not ended |
| `identity`, `ports`, `lock_order` | who the client is, what parts take, the order of locks |

A part takes what it needs: the identity, other parts of floors below, narrow interfaces (`ports`) and callbacks, never
the whole client. What must go up is a callback that `parts` hands in.
"""
