"""The store in Redis: objects, results, functions, actors, and what is known of clients and nodes.

`store.ObjectStore` holds the parts, each of which takes what it needs; `server` has the shared connection; `keys`
spells every key; `lua/` has the scripts; `redis/` is the wire.
"""
