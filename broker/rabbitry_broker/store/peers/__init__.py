"""Large values from host to host, past Redis: whoever reads one takes it from a node of the host that made it.

    reader                                            node on the host that made the value
      |------------------- TCP (TLS) ------------------->|
      |<---- magic, nonce ------------------------------ |
      |----- magic, nonce, proof ----------------------->|  who reads has the cluster's secret, and means this host
      |<---- proof ------------------------------------- |  so has the node
      |----- ask: number, object and token, digest? ---->|
      |<---- answer: number, state, sizes, bytes ------- |
      |<---- the bytes --------------------------------- |
      |<---- end: number, digest ----------------------- |  now, and only now, they count as a value
      |----- ask ... ----------------------------------->|

Proofs, asks, answers and ends are signed with the cluster's secret over both nonces (and over the server's certificate,
with TLS) and, but for the proofs, over the number of the ask: what was recorded of one connection is worth nothing on
another, or at another place of the same. The bytes themselves are data, as in Redis: a pickle among them is compared
with the digest in the end.

| module | |
|---|---|
| `wire` | a socket with limits of time |
| `session` | what is said over it, for both sides |
| `security` | TLS by the options of the store's address |
| `serving` | the node's side |
| `directory` | which host is reached where |
| `reading` | the reader's side |

What cannot be had in this way (`PeerLost`) is read from Redis.
"""
