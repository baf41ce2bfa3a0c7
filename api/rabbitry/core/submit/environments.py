"""The environments of a client's tasks: what stands in their headers, and what is kept in the store for them.

An environment of variables alone travels in the header itself, as JSON. Any other is a record in the store, under the
hash of its content; the header has that hash. Record and packages are held like functions
(`rabbitry_broker.store.functions`): by this client, by the detached actors that it creates, for a while by what else is
detached.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import IO, Any, Final, Protocol

from rabbitry.core.identity import Job
from rabbitry.core.submit.library_modules import LibraryModules
from rabbitry.runtime_env import merge_runtime_envs
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.functions import export
from rabbitry_broker.runtime_environments import LIBRARIES, Libraries, Record, digest_code, record_digest
from rabbitry_broker.store.functions import Kind

log = logging.getLogger("rabbitry")

HOOK: Final = "worker_process_setup_hook"
KNOWN_MOST: Final = 10_000


class FunctionStore(Protocol):
    """Where what is kept under its hash is."""

    def put(self, digest: bytes, pickled: bytes, client: bytes, *, detached: bool = False, kind: Kind = ...) -> None:
        """Store something that a client needs."""

    def hold(self, digests: list[bytes], client: bytes, *, detached: bool = False) -> list[bytes]:
        """Hold what is there; return what is not."""

    def release(self, client: bytes, digests: list[bytes]) -> None:
        """A client needs some of it no more."""


class PackageStore(Protocol):
    """Where packages are."""

    def put(self, uri: str, content: IO[bytes], client: bytes) -> list[bytes]:
        """Store a package; return what it is kept under."""

    def hold(self, uri: str, client: bytes, *, detached: bool = False) -> list[bytes] | None:
        """Hold a package; return what it is kept under, None if it is not there."""


class Environments:
    """What one client's tasks find around them. Any thread may call anything.

    Args:
        client: its id.
        job: whose environment they inherit.
        functions: where records and hooks are kept.
        packages: where packages are.
        register: makes the client known as alive.
        libraries: what executors of libraries have imported.
    """

    def __init__(
        self,
        client: bytes,
        job: Job,
        functions: FunctionStore,
        packages: PackageStore,
        register: Callable[[], None],
        libraries: LibraryModules | None = None,
    ) -> None:
        self._client = client
        self._job = job
        self._functions = functions
        self._packages = packages
        self._register = register
        self._libraries = libraries or LibraryModules()
        self._lock = threading.RLock()
        self._known: dict[tuple[bytes, bool], bytes] = {}  # content, whether it is held as detached: code
        self._records: dict[bytes, Record] = {}  # by code
        self._inherited: dict[bytes, Record] = {}  # the same, of the environment that this process is in
        self._held: dict[str, list[bytes]] = {}  # packages that this client holds
        self._let_go: list[bytes] = []  # records that were not used for long

    def become(self, client: bytes) -> None:
        """What it is for: `become` of the whole."""
        self._client = client

    def __len__(self) -> int:
        """Return how much of what is in the store this client holds for environments."""
        return len(self._known) + len(self._held)

    def inherit(self, code: bytes, record: Record) -> None:
        """This process is in that environment, and so is what it submits unless it says otherwise."""
        self._inherited[code] = record
        self._job.env = record.given
        self._libraries.inherit(Libraries.of(record.env).modules)

    def code(
        self,
        runtime_env: Mapping[str, Any] | None,
        *,
        detached: bool = False,
        of: Callable[..., Any] | None = None,
        threads: int = 1,
    ) -> bytes:
        """Return what stands in the header of tasks: the job's environment, then their own.

        Args:
            runtime_env: of the tasks, checked.
            detached: they may run when this client has left.
            of: the function, or the class, that they run.
            threads: that their CPUs are good for.

        Raises:
            RuntimeEnvSetupError: a package that it names is not there.
            TypeError: the function that it starts with cannot be pickled.
        """
        env = merge_runtime_envs(self._job.env, runtime_env) or {}
        env.pop(LIBRARIES, None)  # not for users to say
        if HOOK not in env and (modules := self._libraries.of(of)):  # a hook may decide what an import does
            env[LIBRARIES] = [list(modules), threads]
        if not env.keys() - {"env_vars"}:
            variables = env.get("env_vars")
            return json.dumps(variables, sort_keys=True).encode() if variables else b""
        env = self.resolved(env, detached=detached)
        content = json.dumps(env, sort_keys=True).encode()
        with self._lock:
            code = self._known.get((content, detached))
            if code is None:
                if len(self._known) >= KNOWN_MOST:
                    self._let_go += [each[1:] for each in self._records]
                    self._known.clear()
                    self._records.clear()
                code = self._keep(env, detached=detached)
                self._known[content, detached] = code
            return code

    def _keep(self, env: dict[str, Any], *, detached: bool) -> bytes:
        self._register()
        holds: list[bytes] = []
        hook = env.get(HOOK)
        if isinstance(hook, dict):
            holds.append(bytes.fromhex(hook["function"]))
            self._functions.hold(holds, self._client, detached=detached)
        for uri in (env.get("working_dir"), *env.get("py_modules", ())):
            if uri is not None and uri.startswith("gcs://"):
                holds += self._hold(uri, detached=detached)
        record = Record(env, tuple(holds))
        packed = record.pack()
        digest = record_digest(packed)
        self._functions.put(digest, packed, self._client, detached=detached, kind=Kind.ENVIRONMENT)
        code = digest_code(digest)
        self._records[code] = record
        return code

    def _hold(self, uri: str, *, detached: bool) -> list[bytes]:
        held = None if detached else self._held.get(uri)
        if held is None:
            held = self._packages.hold(uri, self._client, detached=detached)
            if held is None:
                from rabbitry.exceptions import RuntimeEnvSetupError

                raise RuntimeEnvSetupError(f"the package {uri} is not in the store, or not any more: upload it again.")
            self._held[uri] = held
        return held

    def resolved(self, env: dict[str, Any], *, detached: bool = False) -> dict[str, Any]:
        """Return an environment whose `worker_process_setup_hook`, if it is a function, is in the store.

        Raises:
            TypeError: it cannot be pickled.
        """
        hook = env.get(HOOK)
        if not callable(hook):
            return env
        self._register()
        digest, pickled = export(hook)
        self._functions.put(digest, pickled, self._client, detached=detached)
        name = getattr(hook, "__qualname__", type(hook).__name__)
        return {**env, HOOK: {"function": digest.hex(), "name": name}}

    def holds(self, code: bytes) -> bytes:
        """Return the hashes of all that must be kept for an environment, one after the other."""
        record = self._records.get(code) or self._inherited.get(code)
        return b"" if record is None else b"".join([code[1:], *record.holds])

    def run_once(self) -> None:
        """Let go of records that were not used for long; only while nothing is in flight that may need them."""
        if not self._let_go:
            return
        with self._lock:
            self._functions.release(
                self._client, [each for each in self._let_go if digest_code(each) not in self._records]
            )
            self._let_go.clear()

    # -- packages ----------------------------------------------------------------------------------------------------

    def has(self, uri: str) -> bool:
        """Hold a package that is there; False if it is not."""
        self._register()
        held = self._packages.hold(uri, self._client)
        if held is not None:
            self._held[uri] = held
        return held is not None

    def put(self, uri: str, content: IO[bytes], size: int) -> None:
        """Store a package, and hold it."""
        self._register()
        self._held[uri] = self._packages.put(uri, content, self._client)

    def again(self) -> None:
        """Others took this client for dead, and let go of what it held: hold it again, as far as it is there."""
        with self._lock:
            for code, record in self._records.items():
                try:
                    missing = self._functions.hold([*record.holds], self._client)
                    packed = record.pack()
                    self._functions.put(record_digest(packed), packed, self._client, kind=Kind.ENVIRONMENT)
                except RabbitryBrokerError as error:
                    log.warning("cannot keep the environment %s: %s", code[1:].hex(), error)
                    continue
                if missing:
                    log.warning("packages of a runtime environment are gone from the store: call init() again")
