"""From directories and files of this machine to packages that nodes can read.

| module | what is in it |
|---|---|
| `ignoring` | which files of a directory are left out |
| `zipping` | archives whose bytes follow from what is in them |
| `preparing` | an environment whose local paths are packages |
| `uv_run` | the environment of a driver that `uv run` started |
"""
