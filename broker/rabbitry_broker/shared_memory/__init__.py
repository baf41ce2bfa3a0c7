"""Large objects in shared memory: one file an object, mapped without copying by every process of this host.

A file is `rabbitry-{session}-{object id}`, mode 0600. It is written under another name and renamed, so that it is whole
or not there. Whoever maps it holds a shared lock on it (the mapping keeps the descriptor, and the kernel drops the lock
with it): memory that somebody views is never written again. A deleted file lives on, nameless, until the last view of
it goes.

Writing fresh pages costs three to six times as much as writing them again (1.7 against 5-9 GB/s measured), so files of
deleted objects are reused: by the process that both made and deleted them (`recycling`), or by any on the host
(`pool`).

Who has written an object into the records of the cluster says so at its file (`settle`), whose time of change is 0
then: if there is no record of a settled object, it was deleted.

| module      | what it knows                                                                       |
|-------------|-------------------------------------------------------------------------------------|
| `store`     | `SharedMemoryStore`: objects are written, mapped, deleted                           |
| `sessions`  | who takes part, who looks after the objects, what is swept when nobody does         |
| `room`      | what may be taken of the file system and of the machine, and `ObjectStoreFull`      |
| `layout`    | how an object lies in its file; `copying` puts large buffers there with two threads |
| `mappings`  | how files are mapped; mappings that are kept for the next `open`                    |
| `recycling` | deleted files that this process writes again; `pool`: that any of the host does     |
| `claims`    | what only one process of the host does at a time                                    |
| `files`     | deleting what others may hold                                                       |
"""

from __future__ import annotations

from rabbitry_broker.shared_memory.layout import ALIGNMENT, flat, in_body
from rabbitry_broker.shared_memory.mappings import map_privately
from rabbitry_broker.shared_memory.room import ObjectStoreFull
from rabbitry_broker.shared_memory.sessions import default_directory, sweep_dead_sessions
from rabbitry_broker.shared_memory.store import SharedMemoryStore, raise_file_limit

__all__ = [
    "ALIGNMENT",
    "ObjectStoreFull",
    "SharedMemoryStore",
    "default_directory",
    "flat",
    "in_body",
    "map_privately",
    "raise_file_limit",
    "sweep_dead_sessions",
]
