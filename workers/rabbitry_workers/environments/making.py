"""An environment from its record: which entries of the cache it is made of, and what its processes must be told.

What is made here may be asked for in two processes. The agent looks whether all entries are there (`Plan.find`), which
takes no time; if one is not, a child process makes it (`Plan.make`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from rabbitry.runtime_env.plugins import RuntimeEnvContext, RuntimeEnvPlugin, plugins
from rabbitry_broker.runtime_environments import LIBRARIES, Libraries, Record
from rabbitry_broker.store.packages import Packages
from rabbitry_workers.environments import conda, fetching, images, installing, unpacking
from rabbitry_workers.environments.cache import OF_JOB, Cache, Entry, SetupError

WORKING_DIR_REFERENCE: Final = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
"""What in a requirement stands for the working directory; Ray's name."""

MARKS: Final = frozenset(
    ("RAY_DATA_SHUFFLE_MAP_WORKER", "RAY_DATA_SHUFFLE_REDUCE_WORKER", "__RAY_DATA_OPERATOR_ID")
)  # fmt: skip
"""Variables by which Ray Data has kinds of its tasks in processes of their own. Nothing reads them."""

_STORED: Final = "gcs://"
_IN_PLACE: Final = "local://"
_FIELDS: Final = frozenset(
    (
        "env_vars", "working_dir", "py_modules", "pip", "uv", "conda", "py_executable", "worker_process_setup_hook",
        "config", "container", "image_uri", "preload", LIBRARIES,
    )
)  # fmt: skip


class Setup(NamedTuple):
    """What processes of an environment must be told.

    Attributes:
        env: the fields of the environment.
        holds: hashes of what it needs from the store.
        variables: environment variables.
        path: directories at the head of `sys.path`.
        cwd: working directory; "" for the job's.
        command: what starts their interpreter; () for the node's own.
        image: container image they run in; "" for none.
        image_options: for the container engine.
        preload: modules that are imported before they are forked.
        hook: what they run first: "module.function", the hash of a function in hexadecimal digits, or "".
        libraries: more modules that are imported before, as far as they can be.
        threads: what OMP_NUM_THREADS says while `libraries` are imported.
    """

    env: dict[str, Any]
    holds: list[str]
    variables: dict[str, str]
    path: list[str]
    cwd: str = ""
    command: Sequence[str] = ()
    image: str = ""
    image_options: Sequence[str] = ()
    preload: Sequence[str] = ()
    hook: str = ""
    libraries: Sequence[str] = ()
    threads: int = 1

    def pack(self) -> bytes:
        """Return this as bytes."""
        return json.dumps(self._asdict()).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Setup:
        """Return what `pack` wrote."""
        return cls(**json.loads(data))

    @property
    def marks(self) -> dict[str, str]:
        """Those of its variables that tell its processes from others, and nothing else."""
        return {name: value for name, value in self.variables.items() if name in MARKS}

    def without_marks(self) -> Setup:
        """Return what is the same for all environments that differ in their marks alone."""
        if not self.marks:
            return self
        env = {field: value for field, value in self.env.items() if field != "env_vars"}
        given = self.env.get("env_vars", {})
        if left := {name: value for name, value in given.items() if name not in MARKS}:
            env["env_vars"] = left
        variables = {name: value for name, value in self.variables.items() if name not in MARKS}
        return self._replace(env=env, variables=variables)

    @property
    def has_template(self) -> bool:
        """True if its processes are forked from a template of its own, or as soon as it has one."""
        return self.needs_template or bool(self.libraries)

    @property
    def needs_template(self) -> bool:
        """True if its processes can be forked from no other template."""
        return bool(self.command or self.image or self.preload)


class Part(NamedTuple):
    """One entry of the cache.

    Attributes:
        name: of the entry.
        apply: takes in where it is.
        make: fills its directory; given that, and the descriptor of its lock.
    """

    name: str
    apply: Callable[[Path], None]
    make: Callable[[Path, int], object]


class Plan:
    """What one environment is made of.

    Args:
        record: of the environment.
        job: that it is for.
        cache: of the node.
        sites: directories of the node's packages, with the time of their last change.
        packages: in the store; None where nothing can be made.

    Raises:
        SetupError: it cannot be like that on this node.
    """

    def __init__(
        self,
        record: Record,
        job: bytes,
        cache: Cache,
        sites: Sequence[Sequence[Any]],
        packages: Packages | None = None,
    ) -> None:
        self._env = env = record.env
        self._libraries = Libraries.of(env)
        self._sites = [tuple(each) for each in sites]
        self._job = job
        self._cache = cache
        self._packages = packages
        self._variables: dict[str, str] = _texts(env.get("env_vars", {}))
        self._path: list[str] = []
        self._modules: dict[int, str] = {}
        self._cwd = ""
        self._command: list[str] = []
        self._holds = [each.hex() for each in record.holds]
        self.parts = [*self._working_dir(), *self._py_modules(), *self._layer(), *self._plugins()]

    @property
    def needs_code(self) -> bool:
        """True if making it ready runs code of others, which is no business of an agent."""
        return bool(self._env.keys() - _FIELDS)

    def find(self) -> list[Entry] | None:
        """Return all entries, in use from now on; None if one is not there."""
        found: list[Entry] = []
        for part in self.parts:
            entry = self._cache.find(part.name)
            if entry is None:
                for each in found:
                    os.close(each.lock)
                return None
            part.apply(entry.path)
            found.append(entry)
        return found

    def make(self) -> list[Entry]:
        """Return all entries, in use from now on; those that are not there are made.

        Raises:
            RabbitryBrokerError: one cannot be made.
        """
        made = []
        for part in self.parts:
            entry = self._cache.get(part.name, part.make)
            part.apply(entry.path)
            made.append(entry)
        return made

    def setup(self) -> Setup:
        """Return what processes must be told, once all entries are there."""
        env = self._env
        hook = env.get("worker_process_setup_hook", "")
        container = env.get("container") or {}
        modules = [self._modules[index] for index in sorted(self._modules)]
        return Setup(
            env=env,
            holds=self._holds,
            variables=self._variables,
            path=[*([self._cwd] if self._cwd else []), *modules, *self._path],
            cwd=self._cwd,
            command=self._command,
            image=env.get("image_uri") or container.get("image", ""),
            image_options=list(container.get("run_options", [])),
            preload=list(env.get("preload", [])),
            hook=hook["function"] if isinstance(hook, dict) else hook,
            libraries=self._libraries.modules,
            threads=self._libraries.threads,
        )

    # -- code ----------------------------------------------------------------------------------------------------------

    def _working_dir(self) -> Iterator[Part]:
        uri = self._env.get("working_dir")
        if not uri:
            return

        def apply(path: Path) -> None:
            self._cwd = str(path)

        if uri.startswith(_IN_PLACE):
            apply(_directory_in_place(uri, "working_dir"))
            return
        # Of the job alone: what its tasks write there is nobody else's.
        name = f"{OF_JOB}{self._job.hex()}-{_hash(uri)}"
        yield Part(name, apply, lambda path, lock: self._unpack(uri, path))

    def _py_modules(self) -> Iterator[Part]:
        for index, uri in enumerate(self._env.get("py_modules", [])):

            def apply(path: Path, index: int = index) -> None:
                self._modules[index] = str(path)

            if uri.startswith(_IN_PLACE):
                apply(_directory_in_place(uri, "py_modules"))
                continue
            # What others have stored under its hash is the same for all jobs; what is fetched may not be.
            of = "modules-" if uri.startswith(_STORED) else f"{OF_JOB}{self._job.hex()}-modules-"
            yield Part(f"{of}{_hash(uri)}", apply, partial(self._make_module, uri))

    def _make_module(self, uri: str, path: Path, lock: int) -> None:
        if not uri.split("?")[0].endswith(".whl"):
            self._unpack(uri, path)
            return
        with tempfile.TemporaryDirectory(dir=path) as scratch:
            wheel = Path(scratch) / uri.split("?")[0].rpartition("/")[2]
            self._fetch(uri, wheel)
            installing.install_wheel(wheel, path, self._runner(lock))

    def _unpack(self, uri: str, path: Path) -> None:
        if uri.startswith(_STORED):
            entry = self._cache.get(f"archive-{_hash(uri)}", lambda to, lock: self._fetch(uri, to / "archive"))
            try:
                unpacking.unpack(entry.path / "archive", uri, path, limit=self._cache.limit)
            finally:
                os.close(entry.lock)
            return
        with tempfile.TemporaryDirectory(dir=path) as scratch:
            archive = Path(scratch) / "archive"
            self._fetch(uri, archive)
            unpacking.unpack(archive, uri.split("?")[0], path, limit=self._cache.limit)
        unpacking.strip(path)

    def _fetch(self, uri: str, to: Path) -> None:
        assert self._packages is not None
        fetching.fetch(uri, to, self._packages, limit=self._cache.limit)

    # -- interpreters --------------------------------------------------------------------------------------------------

    def _layer(self) -> Iterator[Part]:
        env = self._env
        if env.get("py_executable"):
            self._command = shlex.split(env["py_executable"])
            return
        if env.get("conda"):
            yield self._conda(env["conda"])
            return
        image = env.get("image_uri") or (env.get("container") or {}).get("image")
        if image:
            name = f"{OF_JOB}{self._job.hex()}-image-{_hash(image)}"
            yield Part(name, _nothing, lambda path, lock: images.provide(image, self._runner(lock)))
            return
        field = next((field for field in ("pip", "uv") if env.get(field)), None)
        if field is None:
            return
        spec = env[field]
        key: list[Any] = [field, spec, sys.prefix, sys.version, self._sites]
        key += [(name, text) for name, text in sorted(self._variables.items()) if name.startswith(("PIP_", "UV_"))]
        key += [_facts_of_files(line) for line in spec["packages"]]
        if any(WORKING_DIR_REFERENCE in line for line in spec["packages"]):
            key.append(env.get("working_dir"))

        def apply(path: Path) -> None:
            self._command = [str(path / "bin" / "python")]
            self._variables.setdefault("VIRTUAL_ENV", str(path))
            self._variables["PATH"] = f"{path / 'bin'}:{self._variables.get('PATH', '${PATH}')}"

        def make(path: Path, lock: int) -> None:
            installing.make_layer(path, [str(each) for each, _ in self._sites])
            packages = [line.replace(WORKING_DIR_REFERENCE, self._cwd) for line in spec["packages"]]
            with tempfile.TemporaryDirectory(dir=path) as scratch:
                installing.install(
                    field, {**spec, "packages": packages}, path, self._runner(lock, scratch), Path(scratch)
                )

        yield Part(f"layer-{_hash(json.dumps(key))}", apply, make)

    def _conda(self, spec: str | dict[str, Any]) -> Part:
        def apply(path: Path) -> None:
            prefix = Path((path / "prefix").read_text())
            self._command = [conda.python_of(prefix)]
            self._variables.setdefault("CONDA_PREFIX", str(prefix))
            self._variables["PATH"] = f"{prefix / 'bin'}:{self._variables.get('PATH', '${PATH}')}"

        def make(path: Path, lock: int) -> None:
            if isinstance(spec, str):
                (path / "prefix").write_text(str(conda.prefix_of(spec)))
            else:
                conda.create(spec, path, self._runner(lock))
                (path / "prefix").write_text(str(path / "env"))

        # One that is on the node already may be another one tomorrow: it is looked for once a job.
        of = f"{OF_JOB}{self._job.hex()}-conda-" if isinstance(spec, str) else "conda-"
        return Part(f"{of}{_hash(json.dumps([spec, sys.version], sort_keys=True))}", apply, make)

    def _runner(self, lock: int, scratch: str = "") -> installing.Runner:
        # What a killed pip leaves among its temporary files goes with what it was to make.
        return installing.Runner({**({"TMPDIR": scratch} if scratch else {}), **self._variables}, lock)

    # -- plugins -------------------------------------------------------------------------------------------------------

    def _plugins(self) -> Iterator[Part]:
        fields = self._env.keys() - _FIELDS
        if not fields:
            return
        known = plugins()
        # What no plugin here knows is nobody's, or a mistake that the driver has told: it changes nothing.
        for name, plugin in known.items():
            if name in fields:
                yield self._plugin(name, plugin, self._env[name])

    def _plugin(self, name: str, plugin: RuntimeEnvPlugin, value: Any) -> Part:
        def make(path: Path, lock: int) -> None:
            plugin.create(value, RuntimeEnvContext(str(path)))

        def apply(path: Path) -> None:
            context = RuntimeEnvContext(str(path))
            plugin.modify_context(value, context)
            self._variables.update(_texts(context.env_vars))
            self._path += context.py_path
            if context.py_executable:
                self._command = shlex.split(context.py_executable)

        return Part(f"plugin-{_hash(json.dumps([name, value], sort_keys=True))}", apply, make)


def _nothing(_path: Path) -> None:
    """What there is to know of it, who has it knows."""


def _texts(variables: Any) -> dict[str, str]:
    if not isinstance(variables, dict) or not all(isinstance(each, str) for pair in variables.items() for each in pair):
        raise SetupError("env_vars of the environment are not text to text")
    return dict(variables)


def _directory_in_place(uri: str, field: str) -> Path:
    path = Path(uri.removeprefix(_IN_PLACE))
    if not path.is_dir():
        raise SetupError(f"{field} {uri} points to {path}, which must be there on every node already, and is not here")
    return path


def _facts_of_files(line: str) -> Any:
    """Return what tells two contents of the files in a requirement apart: they may be built anew under their name."""
    path = line.partition(" @ file://")[2] or line.strip()
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return None
    return facts.st_mtime_ns, facts.st_size


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
