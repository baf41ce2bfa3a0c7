"""Environments that need a tool of the node's: conda, a container engine, a plugin, `uv run`.

The stand-ins for the tools do what those do as far as it is seen here: a prefix with a Python, a process with the
variables that it was given and nothing else of the node's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry.exceptions import RuntimeEnvSetupError, TaskCancelledError
from tests.end_to_end.conftest import node_environment

CONDA = f"""#!{sys.executable}
import json, os, sys, venv
if sys.argv[1:] == ["info", "--json"]:
    print(json.dumps({{"root_prefix": "/opt/conda", "envs": ["/opt/conda", os.environ["STANDIN_ENVIRONMENT"]]}}))
elif sys.argv[1:3] == ["env", "create"]:
    prefix, file = sys.argv[4], sys.argv[6]
    content = json.load(open(file))
    if "fails" in content["dependencies"]:
        sys.exit("PackagesNotFoundError: fails")
    assert any(each.startswith("python=") for each in content["dependencies"])
    venv.create(prefix, symlinks=True)
"""
ENGINE = f"""#!{sys.executable}
import os, sys
words = sys.argv[1:]
if words[0] == "image":
    sys.exit("missing" in words[-1])
if words[0] == "pull":
    sys.exit("manifest unknown")
assert words[0] == "run" and "--pid=host" in words and "--ipc=host" in words
names = [words[at + 1] for at, word in enumerate(words) if word == "-e"]
at = words.index("--entrypoint")
environment = {{name: os.environ[name] for name in names}}
environment.update(PATH=os.environ["PATH"], IMAGE=words[at + 2])
os.chdir("/")
os.execve({sys.executable!r}, ["python3", *words[at + 3 :]], environment)
"""
PLUGIN = """
import os
class Dotenv:
    name = "dotenv"
    priority = 5
    @staticmethod
    def validate(runtime_env_dict):
        if not isinstance(runtime_env_dict["dotenv"], dict):
            raise ValueError("dotenv must be a dict")
    def create(self, value, context):
        with open(os.path.join(context.directory, "made_by_plugin.py"), "w") as file:
            file.write(f"VALUE = {value!r}")
    def modify_context(self, value, context):
        context.env_vars.update(value)
        context.py_path.append(context.directory)
"""


@rabbitry.remote
def seen(*names: str) -> tuple[str, list[str | None]]:
    return sys.prefix, [os.environ.get(name) for name in names]


@rabbitry.remote
class Seeing:
    def seen(self, name: str) -> str | None:
        return os.environ.get(name)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory at the head of PATH with the stand-ins."""
    directory = tmp_path / "tools"
    directory.mkdir()
    for name, text in (("conda", CONDA), ("podman", ENGINE)):
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    monkeypatch.delenv("CONDA_EXE", raising=False)
    return directory


@pytest.fixture
def init() -> Iterator[Callable[..., Any]]:
    """`rabbitry.init` for this test."""
    yield lambda **options: rabbitry.init(num_cpus=2, log_to_driver=False, **options)
    rabbitry.shutdown()


def test_conda_where_conda_is(tools: Path, init: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import venv

    venv.create(tmp_path / "named", symlinks=True)
    monkeypatch.setenv("STANDIN_ENVIRONMENT", str(tmp_path / "named"))
    init()
    named = seen.options(runtime_env={"conda": "named"}).remote("CONDA_PREFIX")
    made = seen.options(runtime_env={"conda": {"dependencies": ["numpy"]}}).remote("CONDA_PREFIX")
    prefix, variables = rabbitry.get(named, timeout=50)
    assert prefix == str(tmp_path / "named") == variables[0]
    prefix, _ = rabbitry.get(made, timeout=50)
    assert prefix.endswith("/env") and "conda-" in prefix
    for env, why in (
        ({"conda": "unheard-of"}, "no conda environment 'unheard-of'"),
        ({"conda": {"dependencies": ["fails"]}}, "PackagesNotFoundError"),
    ):
        with pytest.raises(RuntimeEnvSetupError, match=why):
            rabbitry.get(seen.options(runtime_env=env).remote(), timeout=50)


def test_a_container_image_where_an_engine_is(tools: Path, init: Any) -> None:
    init()
    env = {"image_uri": "docker.io/library/python:3", "env_vars": {"LEVEL": "1"}}
    _, variables = rabbitry.get(seen.options(runtime_env=env).remote("IMAGE", "LEVEL", "HOME"), timeout=50)
    assert variables == ["docker.io/library/python:3", "1", None]
    actor = Seeing.options(runtime_env={"container": {"image": "other"}}).remote()
    assert rabbitry.get(actor.seen.remote("IMAGE"), timeout=50) == "other"
    with pytest.raises(RuntimeEnvSetupError, match="manifest unknown"):
        rabbitry.get(seen.options(runtime_env={"image_uri": "missing"}).remote(), timeout=50)


def test_a_plugin_adds_a_field(init: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @rabbitry.remote
    def made() -> tuple[Any, str | None]:
        import made_by_plugin  # type: ignore[import-not-found]

        return made_by_plugin.VALUE, os.environ.get("FROM_PLUGIN")

    (tmp_path / "a_plugin_of_the_tests.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("RAY_RUNTIME_ENV_PLUGINS", json.dumps([{"class": "a_plugin_of_the_tests.Dotenv"}]))
    init(runtime_env={"dotenv": {"FROM_PLUGIN": "yes"}})
    assert rabbitry.get(made.remote(), timeout=50) == ({"FROM_PLUGIN": "yes"}, "yes")
    with pytest.raises(ValueError, match="dotenv must be a dict"):
        made.options(runtime_env={"dotenv": "text"})


def test_a_driver_of_uv_run_has_its_tasks_started_so_too(tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    script = tmp_path / "driver.py"
    script.write_text(
        "import os\n"
        "import rabbitry as ray\n"
        "ray.init(num_cpus=1, log_to_driver=False)\n"
        "@ray.remote\n"
        "def f():\n"
        "    import beside\n"
        "    return beside.VALUE, 'UV_RUN_RECURSION_DEPTH' in os.environ, ray.get_runtime_context().runtime_env\n"
        "print(ray.get(f.remote(), timeout=50))\n"
    )
    (tmp_path / "beside.py").write_text("VALUE = 'beside'\n")
    done = subprocess.run(
        [str(uv), "run", "--no-project", "--offline", "--python", sys.executable, str(script)],
        cwd=tmp_path,
        env=node_environment(),
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert "'beside', True" in done.stdout, done.stderr
    assert f"'py_executable': '{uv} run --no-project --offline --python {sys.executable} python'" in done.stdout


def test_what_a_detached_actor_needs_stays_as_long_as_it_lives(init: Any, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "of_the_actor.py").write_text("VALUE = 1\n")
    address = init(runtime_env={"working_dir": str(tmp_path / "code")}).address_info["address"]
    client = rabbitry.current.client()
    script = (
        "import sys, rabbitry as ray\n"
        "ray.init(address=sys.argv[1], namespace='n', runtime_env={'working_dir': sys.argv[2]}, log_to_driver=False)\n"
        "@ray.remote(name='stays', lifetime='detached')\n"
        "class Stays:\n"
        "    def value(self):\n"
        "        import of_another\n"
        "        return of_another.VALUE\n"
        "print(ray.get(Stays.remote().value.remote(), timeout=50))\n"
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "of_another.py").write_text("VALUE = 2\n")
    done = subprocess.run(
        [sys.executable, "-c", script, address, str(tmp_path / "other")],
        env=node_environment(), capture_output=True, text=True, timeout=55,
    )  # fmt: skip
    assert done.stdout.strip() == "2", done.stderr
    actor = rabbitry.get_actor("stays", namespace="n")
    assert rabbitry.get(actor.value.remote(), timeout=30) == 2
    ((needs,),) = [client.store.call(b"HMGET", client.keys.actor(actor._actor_id.binary()), b"function")]
    digests = [bytes.fromhex(each.decode()) for each in needs.split()]
    assert len(digests) == 5, "its class, its job, the record of its environment, its package and that one's one piece"
    for digest in digests:
        assert b"a" + actor._actor_id.hex().encode() in client.store.call(
            b"SMEMBERS", client.keys.function_holders(digest)
        )
    rabbitry.kill(actor)


def test_an_interpreter_that_never_comes_up_keeps_nobody_waiting(init: Any) -> None:
    init()
    never = {"py_executable": "sh -c 'sleep 1000'"}
    stuck = [seen.options(runtime_env=never).remote("PATH") for _ in range(4)]  # more than there are CPUs
    assert rabbitry.get(seen.remote("PATH"), timeout=30)
    for ref in stuck:
        rabbitry.cancel(ref)
        with pytest.raises(TaskCancelledError):
            rabbitry.get(ref, timeout=30)
