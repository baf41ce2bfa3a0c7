"""Runtime environments on a node: fetched, unpacked and installed by a child process, into a cache of this user's.

| module | what is in it |
|---|---|
| `cache` | what is kept, who uses it, and what goes |
| `fetching` | packages and archives come here |
| `unpacking` | archives become directories, and nothing beside them |
| `installing` | layers of packages over those of the node, by uv or pip |
| `making` | an environment from its record: what its processes must be told |
| `build` | the child process: `python -m rabbitry_workers.environments` |
| `launch` | the first file that an interpreter of an environment runs |
"""
