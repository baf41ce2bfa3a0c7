"""Runtime environments as users meet them: code and packages come along, on both engines, on several nodes."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry.cluster_utils import Cluster
from rabbitry.exceptions import RuntimeEnvSetupError
from rabbitry.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rabbitry_workers.environments.cache import Cache
from tests.end_to_end.conftest import node_environment
from tests.servers import wait_until
from tests.wheels import build_wheel

ANSWER = "rabbitrytestpackage"
NO_INDEX = ("--no-index",)


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two versions of a small package, and one that needs it."""
    directory = tmp_path_factory.mktemp("links")
    for version in ("1.0", "2.0"):
        build_wheel(directory, ANSWER, version, {f"{ANSWER}.py": f"VERSION = {version!r}\n"})
    build_wheel(directory, "rabbitryneedy", "1.0", {"rabbitryneedy.py": f"from {ANSWER} import VERSION\n"}, [ANSWER])
    return directory


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with a module of its own name, data, and what is not to be sent."""
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "besideme.py").write_text(f"TOKEN = {secrets.token_hex(8)!r}\n")
    (directory / "data.txt").write_text("data")
    (directory / ".gitignore").write_text("*.secret\n")
    (directory / "key.secret").write_text("secret")
    (directory / ".venv").mkdir()
    (directory / ".venv" / "large").write_text("large")
    return directory


def token_of(project: Path) -> str:
    return (project / "besideme.py").read_text().split("'")[1]


@rabbitry.remote
def look() -> dict[str, Any]:
    import besideme

    return {
        "token": besideme.TOKEN,
        "data": Path("data.txt").read_text(),
        "files": sorted(set(os.listdir()) - {"__pycache__"}),  # that is Python's, unless it is told not to
        "cwd": os.getcwd(),
        "node": rabbitry.get_runtime_context().get_node_id(),
    }


@rabbitry.remote
class Looking:
    def look(self) -> dict[str, Any]:
        return rabbitry.get(look.remote())

    def environment(self) -> dict[str, Any]:
        return rabbitry.get_runtime_context().runtime_env.to_dict()


@rabbitry.remote
def version_of(module: str) -> tuple[str, str]:
    return __import__(module).VERSION, sys.executable


def pip(links: Path, *packages: str, **options: Any) -> dict[str, Any]:
    return {"pip": {"packages": [*NO_INDEX, f"--find-links {links}", *packages], **options}}


@pytest.fixture(scope="module")
def cluster(engine_arguments: dict[str, Any]) -> Iterator[Cluster]:
    """A cluster of two nodes, for drivers to come and go."""
    with Cluster(node_lease=5.0, **engine_arguments) as started:
        for _ in range(2):
            started.add_node(num_cpus=2)
        yield started


@pytest.fixture
def connect(cluster: Cluster) -> Iterator[Callable[..., list[str]]]:
    """Return a function that connects a driver with an environment, and returns the nodes' ids."""

    def connected(runtime_env: dict[str, Any] | None = None) -> list[str]:
        cluster.connect(log_to_driver=False, runtime_env=runtime_env)
        cluster.wait_for_nodes(10)
        return [node["NodeID"] for node in rabbitry.nodes()]

    yield connected
    rabbitry.shutdown()


def on_each(nodes: list[str], remote: Any, *args: Any, **options: Any) -> list[Any]:
    """Run a function on each node, and return what it returned."""
    remotes = [
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False), **options)
        for node in nodes
    ]
    return rabbitry.get([each.remote(*args) for each in remotes], timeout=50)


# -- code comes along --------------------------------------------------------------------------------------------------


def test_a_working_directory_is_where_tasks_run_on_every_node(connect: Any, project: Path) -> None:
    nodes = connect({"working_dir": str(project), "excludes": ["nothing"]})
    seen = on_each(nodes, look)
    assert [each["node"] for each in seen] == nodes
    for each in seen:
        assert (each["token"], each["data"]) == (token_of(project), "data")
        assert each["files"] == [".gitignore", "besideme.py", "data.txt"], "what is ignored stays at home"
        assert each["cwd"] != str(project)
    actor = Looking.remote()
    assert rabbitry.get(actor.look.remote(), timeout=30)["token"] == token_of(project), "children inherit it"
    env = rabbitry.get(actor.environment.remote(), timeout=30)
    assert env["working_dir"].startswith("gcs://_ray_pkg_") and env["working_dir"].endswith(".zip")


def test_modules_come_along(connect: Any, tmp_path: Path, links: Path) -> None:
    package = tmp_path / "a_package_that_comes_along"
    package.mkdir()
    (package / "__init__.py").write_text("VERSION = 'package'\n")
    (tmp_path / "a_module_that_comes_along.py").write_text("VERSION = 'module'\n")
    wheel = next(links.glob(f"{ANSWER}-2.0*"))
    connect({"py_modules": [str(package), tmp_path / "a_module_that_comes_along.py", str(wheel)]})
    names = ["a_package_that_comes_along", "a_module_that_comes_along", ANSWER]
    found = rabbitry.get([version_of.remote(name) for name in names], timeout=50)
    assert [version for version, _ in found] == ["package", "module", "2.0"]
    assert {python for _, python in found} == {sys.executable}, "executors fork from the node's own template"


def test_what_a_job_writes_into_its_working_directory_is_its_own(connect: Any, project: Path) -> None:
    @rabbitry.remote
    def write(text: str) -> str:
        Path("data.txt").write_text(text)
        return os.getcwd()

    connect({"working_dir": str(project)})
    first = rabbitry.get(write.remote("changed"), timeout=30)
    assert "changed" in [each["data"] for each in rabbitry.get([look.remote()], timeout=30)]
    rabbitry.shutdown()
    connect({"working_dir": str(project)})
    seen = rabbitry.get(look.remote(), timeout=30)
    assert seen["data"] == "data" and seen["cwd"] != first


def test_archives_and_uris_are_unpacked(connect: Any, project: Path, tmp_path: Path) -> None:
    archive = tmp_path / "project.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for each in ("besideme.py", "data.txt"):
            opened.write(project / each, each)
    inside = tmp_path / "inside.zip"
    with zipfile.ZipFile(inside, "w") as opened:
        opened.write(project / "besideme.py", "top/besideme.py")
        opened.writestr("top/data.txt", "other data")
    connect({"working_dir": str(archive)})
    assert rabbitry.get(look.remote(), timeout=30)["data"] == "data"
    other = look.options(runtime_env={"working_dir": inside.as_uri()})
    assert rabbitry.get(other.remote(), timeout=30)["data"] == "other data", "one directory at the top is left out"
    in_place = look.options(runtime_env={"working_dir": f"local://{project}"})
    assert rabbitry.get(in_place.remote(), timeout=30)["cwd"] == str(project)


def test_auto_is_the_directory_of_the_script(cluster: Cluster, project: Path) -> None:
    # The driver's own directory is not there when the task runs, as on another machine.
    script = project / "driver.py"
    script.write_text(
        "import os, shutil, sys\n"
        "import rabbitry as ray\n"
        "ray.init(address=sys.argv[1], runtime_env={'working_dir': 'auto'})\n"
        "os.chdir('/')\n"
        "shutil.rmtree(os.path.dirname(os.path.abspath(__file__)))\n"
        "@ray.remote\n"
        "def f():\n"
        "    import besideme\n"
        "    return besideme.TOKEN\n"
        "print('token', ray.get(f.remote(), timeout=30))\n"
    )
    token = token_of(project)
    done = subprocess.run(
        [sys.executable, str(script), cluster.address],
        env=node_environment(),
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert f"token {token}" in done.stdout, done.stderr
    assert re.search(r"the working directory \S+project goes to the nodes: 4 files", done.stderr)


# -- packages ----------------------------------------------------------------------------------------------------------


def test_packages_are_layered_over_the_nodes_own(connect: Any, links: Path) -> None:
    nodes = connect()
    both = [
        version_of.options(runtime_env=pip(links, f"{ANSWER}=={version}")).remote(ANSWER) for version in ("1.0", "2.0")
    ]
    (first, python), (second, other) = rabbitry.get(both, timeout=50)
    assert (first, second) == ("1.0", "2.0")
    assert python != other and str(Cache.from_environment().directory) in python
    found = on_each(nodes, version_of, ANSWER, runtime_env=pip(links, f"{ANSWER}==2.0"))
    assert found == [("2.0", other)] * 2, "two nodes of one machine share them"
    uv = {"uv": {"packages": ["rabbitryneedy"], "uv_pip_install_options": [*NO_INDEX, "--find-links", str(links)]}}
    assert rabbitry.get(version_of.options(runtime_env=uv).remote("rabbitryneedy"), timeout=50)[0] == "2.0"


def test_what_the_node_has_is_not_installed_again(connect: Any, links: Path) -> None:
    @rabbitry.remote
    def installed() -> list[str]:
        import msgspec

        assert "site-packages" in msgspec.__file__
        site = Path(sys.executable).parent.parent / "lib"
        return sorted(each.name for each in next(site.iterdir()).joinpath("site-packages").iterdir())

    # An index that does not know of what the node has: only pip sees that it is there.
    build_wheel(links, "rabbitrymixed", "1.0", {"rabbitrymixed.py": ""}, ["cloudpickle", ANSWER])
    connect()
    names = rabbitry.get(installed.options(runtime_env=pip(links, "rabbitrymixed")).remote(), timeout=50)
    assert f"{ANSWER}.py" in names and not any("cloudpickle" in name for name in names)


def test_packages_that_cannot_be_installed_say_why(connect: Any, links: Path) -> None:
    connect()
    remote = version_of.options(runtime_env=pip(links, f"{ANSWER}==7.0"), max_retries=0)
    for _ in range(2):
        with pytest.raises(RuntimeEnvSetupError, match=f"No matching distribution found for {ANSWER}==7.0") as raised:
            rabbitry.get(remote.remote(ANSWER), timeout=50)
        assert ".log" in str(raised.value) and "(node " in str(raised.value)
    actor = Looking.options(runtime_env=pip(links, f"{ANSWER}==7.0")).remote()
    with pytest.raises(rabbitry.exceptions.RayError, match="No matching distribution"):
        rabbitry.get(actor.environment.remote(), timeout=50)


def test_an_environment_is_made_before_its_first_task_comes(connect: Any, links: Path) -> None:
    connect(pip(links, f"{ANSWER}==1.0"))
    cache = Cache.from_environment()
    wait_until(lambda: any(cache.directory.glob("entries/layer-*.json")), "a layer is there")
    assert rabbitry.get(version_of.remote(ANSWER), timeout=50)[0] == "1.0"


def test_a_setup_that_takes_too_long_is_ended(connect: Any, tmp_path: Path) -> None:
    source = tmp_path / "slow"
    source.mkdir()
    backend = '[build-system]\nrequires = []\nbuild-backend = "slow"\nbackend-path = ["."]\n'  # needs no setuptools
    (source / "pyproject.toml").write_text(backend)
    (source / "slow.py").write_text("import time; time.sleep(100)\n")
    env = {"pip": {"packages": [str(source)], "pip_install_options": ["--no-build-isolation", "--no-index"]},
           "config": {"setup_timeout_seconds": 2}}  # fmt: skip
    connect()
    began = time.monotonic()
    with pytest.raises(RuntimeEnvSetupError, match="not set up within 2 s"):
        rabbitry.get(version_of.options(runtime_env=env).remote("x"), timeout=50)
    assert time.monotonic() - began < 30


# -- processes ---------------------------------------------------------------------------------------------------------


def test_executors_have_their_modules_imported_when_they_start(connect: Any, project: Path) -> None:
    @rabbitry.remote
    def imported() -> tuple[bool, bool, str]:
        return "besideme" in sys.modules, "colorsys" in sys.modules, os.environ["LEVEL"]

    connect({"working_dir": str(project), "preload": ["besideme", "colorsys"], "env_vars": {"LEVEL": "1${LEVEL}"}})
    assert rabbitry.get(imported.remote(), timeout=30) == (True, True, "1")
    missing = r".*\['preload'\] names 'rabbitrynosuchmodule'.*No module named 'rabbitrynosuchmodule'\n"
    message = rf"Failed to set up runtime environment\.\n{missing}"
    with pytest.raises(RuntimeEnvSetupError, match=message):
        rabbitry.get(imported.options(runtime_env={"preload": ["rabbitrynosuchmodule"]}).remote(), timeout=30)
    assert rabbitry.get(imported.remote(), timeout=30) == (True, True, "1")


def test_what_libraries_run_is_forked_from_a_process_that_has_them(
    connect: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that is taken for one of the libraries notes in which process it is imported."""
    package = tmp_path / "xgboost_ray"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import os\n"
        "IMPORTED_BY = os.getpid()\n"
        "class Actor:\n"
        "    def look(self):\n"
        "        import numpy, rabbitry\n"
        "        env = rabbitry.get_runtime_context().runtime_env\n"
        "        return os.getpid(), os.getppid(), IMPORTED_BY, dict(env), numpy.random.randint(1 << 62)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    connect()
    import numpy.random  # noqa: F401  it is preloaded, too
    import xgboost_ray  # type: ignore[import-not-found]

    @rabbitry.remote
    def has_it() -> bool:
        return "xgboost_ray" in sys.modules

    try:
        actors = [rabbitry.remote(xgboost_ray.Actor).remote() for _ in range(2)]
        seen = rabbitry.get([each.look.remote() for each in actors], timeout=50)
        assert not rabbitry.get(has_it.remote(), timeout=50)
        # The first one imports it itself. Each node does so, and the two may be on two nodes.
        assert seen[0][0] == seen[0][2]
        later = [rabbitry.remote(xgboost_ray.Actor).remote() for _ in range(4)]
        seen += rabbitry.get([each.look.remote() for each in later], timeout=50)
        assert any(parent == imported != own for own, parent, imported, _, _ in seen)
        assert all(imported in (own, parent) for own, parent, imported, _, _ in seen)
        assert all(env == {} for *_, env, _ in seen), "programs do not see it"
        assert len({drawn for *_, drawn in seen}) == len(seen)
    finally:
        del sys.modules["xgboost_ray"]


def test_a_hook_runs_first_in_each_process(connect: Any, project: Path) -> None:
    def hook() -> None:
        os.environ["HOOKED"] = "yes"

    @rabbitry.remote
    def hooked() -> tuple[str | None, str]:
        return os.environ.get("HOOKED"), rabbitry.get_runtime_context().runtime_env["worker_process_setup_hook"]

    (project / "hooks.py").write_text("import os\ndef start(): os.environ['HOOKED'] = 'by name'\ndef fail(): 1 / 0\n")
    connect({"working_dir": str(project), "worker_process_setup_hook": hook})
    value, name = rabbitry.get(hooked.remote(), timeout=30)
    assert value == "yes" and "hook" in name
    by_name = hooked.options(runtime_env={"worker_process_setup_hook": "hooks.start"})
    assert rabbitry.get(by_name.remote(), timeout=30) == ("by name", "hooks.start")
    with pytest.raises(RuntimeEnvSetupError, match="ZeroDivisionError"):
        rabbitry.get(hooked.options(runtime_env={"worker_process_setup_hook": "hooks.fail"}).remote(), timeout=30)


def test_an_interpreter_of_ones_own(connect: Any, tmp_path: Path) -> None:
    @rabbitry.remote
    def flags() -> tuple[bool, str]:
        return sys.flags.no_user_site == 1, os.environ.get("WRAPPED", "")

    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\nWRAPPED=yes exec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    connect()
    env = {"py_executable": f"{wrapper} -s"}
    assert rabbitry.get(flags.options(runtime_env=env).remote(), timeout=30) == (True, "yes")
    for command in ("/no/such/python", "/bin/false"):
        with pytest.raises(RuntimeEnvSetupError, match=r"cannot be started|end before they do anything"):
            rabbitry.get(flags.options(runtime_env={"py_executable": command}).remote(), timeout=30)
    assert rabbitry.get(flags.remote(), timeout=30) == (False, "")


def test_children_of_tasks_find_the_code_too(connect: Any, project: Path, tmp_path: Path) -> None:
    @rabbitry.remote
    def child() -> str:
        script = "import besideme, alongside; print(besideme.TOKEN)"
        return subprocess.run(
            [sys.executable, "-c", script], cwd="/", capture_output=True, text=True, check=True
        ).stdout

    (tmp_path / "alongside.py").write_text("")
    connect({"working_dir": str(project), "py_modules": [str(tmp_path / "alongside.py")]})
    assert rabbitry.get(child.remote(), timeout=30).strip() == token_of(project)


def test_a_preload_that_never_ends_is_given_up(connect: Any, project: Path) -> None:
    (project / "neverends.py").write_text("import time; time.sleep(1000)\n")
    env = {"preload": ["neverends"], "config": {"setup_timeout_seconds": 2}}
    connect({"working_dir": str(project)})
    # What it needs besides is there then: the time is the preload's alone, also where a builder takes seconds to start.
    assert rabbitry.get(look.remote(), timeout=30)["token"] == token_of(project)
    with pytest.raises(RuntimeEnvSetupError, match="not ready within 2 s"):
        rabbitry.get(look.options(runtime_env=env).remote(), timeout=30)
    assert rabbitry.get(look.remote(), timeout=30)["token"] == token_of(project)
