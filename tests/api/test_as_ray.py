"""Programs that say `import ray`, run by `python -m rabbitry.as_ray`: they run as by Python, and reach rabbitry."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rabbitry import exceptions

ROOTS = [str(Path(__file__).parents[2] / root) for root in ("broker", "api", "workers")]
TIMEOUT = 30

# What a program can see of how it was started, and four ways to end.
PROBE = """
import json, sys
how = sys.argv[-1]
print(json.dumps([sys.argv, __file__, sys.path[0], __name__, __package__, str(__spec__)[:30], sorted(globals())]))
sys.stdout.flush()
def end():
    if how == "error":
        try:
            {}["inner"]
        except KeyError as error:
            raise ValueError("outer") from error
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "code":
        sys.exit(7)
    if how == "text":
        sys.exit("goodbye")
end()
"""


def run(
    *arguments: str, cwd: Path, path: list[str] | None = None, as_ray: bool = True
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-m", "rabbitry.as_ray"] if as_ray else []), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*(path or []), *ROOTS])}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=TIMEOUT)


def output(*arguments: str, cwd: Path, path: list[str] | None = None) -> list[str]:
    done = run(*arguments, cwd=cwd, path=path)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path.name


def installed_ray(directory: Path) -> list[str]:
    """Make a package that stands for a real Ray on this machine; return the path to import it from."""
    write(directory / "site" / "ray" / "__init__.py", "print('the real Ray')")
    write(directory / "site" / "ray" / "data.py", "print('the real Ray')")
    return [str(directory / "site")]


@pytest.mark.parametrize("how", ["normal", "error", "interrupt", "code", "text"])
@pytest.mark.parametrize("what", ["probe.py", "elsewhere/probe.py", "-m package", "-m package.probe", "application"])
def test_a_program_runs_as_python_runs_it(tmp_path: Path, what: str, how: str) -> None:
    for name in (
        "probe.py",
        "elsewhere/probe.py",
        "package/__main__.py",
        "package/probe.py",
        "application/__main__.py",
    ):
        write(tmp_path / name, PROBE)
    by_python = run(*what.split(), "one", how, cwd=tmp_path, as_ray=False)
    by_us = run(*what.split(), "one", how, cwd=tmp_path)
    assert by_us.stdout == by_python.stdout
    assert by_us.returncode == by_python.returncode
    # Python shows how it ran a module; we show nothing of how we did.
    shown = [line for line in by_python.stderr.splitlines() if "runpy" not in line and "run_globals" not in line]
    assert by_us.stderr.splitlines() == [line for line in shown if "main_globals" not in line]
    assert (by_us.returncode == -signal.SIGINT) == (how == "interrupt")


def test_code_runs_as_python_runs_it(tmp_path: Path) -> None:
    code = "import sys; print(sys.argv, repr(sys.path[0]), __name__); {}['key']"
    by_python = run("-c", code, "one", cwd=tmp_path, as_ray=False)
    by_us = run("-c", code, "one", cwd=tmp_path)
    assert (by_us.stdout, by_us.stderr, by_us.returncode) == (by_python.stdout, by_python.stderr, by_python.returncode)


def test_a_syntax_error_looks_as_python_shows_it(tmp_path: Path) -> None:
    write(tmp_path / "broken.py", "def f(:")
    assert run("broken.py", cwd=tmp_path).stderr == run("broken.py", cwd=tmp_path, as_ray=False).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "usage"),
        (["-m"], "-m needs an argument"),
        (["nowhere.py"], "can't open file"),
        (["-m", "nowhere"], "no module named nowhere"),
        (["-m", "nowhere.deeper"], "No module named 'nowhere'"),
    ],
)
def test_what_cannot_run_is_named(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_excepthook_of_the_program_sees_the_program_alone(tmp_path: Path) -> None:
    program = write(
        tmp_path / "prog.py",
        """
        import sys
        def hook(kind, error, traceback):
            print(kind.__name__, traceback.tb_frame.f_code.co_filename)
        sys.excepthook = hook
        1 / 0
        """,
    )
    done = run(program, cwd=tmp_path)
    assert done.stdout.split() == ["ZeroDivisionError", str(tmp_path / "prog.py")]
    assert (done.returncode, done.stderr) == (1, "")


def test_rays_modules_are_rabbitrys(tmp_path: Path) -> None:
    program = write(
        tmp_path / "prog.py",
        """
        import json, sys
        import ray
        import ray.exceptions
        import ray.util.scheduling_strategies as strategies
        from ray.util import scheduling_strategies
        from ray.exceptions import RayTaskError
        import rabbitry, rabbitry.util.scheduling_strategies
        print(json.dumps([
            ray.get is rabbitry.get and ray.__version__.startswith("2."),
            ray.exceptions is rabbitry.exceptions is sys.modules["ray.exceptions"],
            strategies is scheduling_strategies is rabbitry.util.scheduling_strategies,
            RayTaskError is rabbitry.exceptions.RayTaskError,
            # Pickles name modules by these.
            rabbitry.__spec__.name == "rabbitry" and strategies.__spec__.name == "rabbitry.util.scheduling_strategies",
        ]))
        """,
    )
    assert json.loads(output(program, cwd=tmp_path)[-1]) == [True] * 5


def test_what_rabbitry_has_not_is_named(tmp_path: Path) -> None:
    program = write(
        tmp_path / "prog.py",
        """
        import importlib.util
        for statement in ("import ray.data", "import ray.data.block", "from ray.util.nothing import x"):
            try:
                exec(statement)
            except ModuleNotFoundError as error:
                print(error.name, str(error).split(", which")[0], sep="|")
        print(importlib.util.find_spec("ray.data"), importlib.util.find_spec("ray") is not None)
        """,
    )
    assert output(program, cwd=tmp_path, path=installed_ray(tmp_path)) == [
        "ray.data|ray.data is not part of rabbitry",
        "ray.data|ray.data is not part of rabbitry",
        "ray.util.nothing|ray.util.nothing is not part of rabbitry",
        "None True",
    ]


def test_a_ray_that_is_installed_is_not_reached(tmp_path: Path) -> None:
    path = installed_ray(tmp_path)
    child = "import ray.util, sys; print(ray.__name__, [n for n in sys.modules if n == 'ray.data'])"
    program = write(
        tmp_path / "prog.py",
        f"""
        import ray, subprocess, sys
        print(ray.__name__)
        sys.stdout.flush()
        subprocess.run([sys.executable, "-c", {child!r}], check=True)
        """,
    )
    assert run("prog.py", cwd=tmp_path, path=path, as_ray=False).stdout.startswith("the real Ray")
    assert output(program, cwd=tmp_path, path=path) == ["ray", "ray []"]


def test_install_replaces_a_ray_that_was_imported_before(tmp_path: Path) -> None:
    code = """
import ray, ray.data, sys
from rabbitry.as_ray import install
install(); install()
import ray
print(ray.__name__, "ray.data" in sys.modules, len([f for f in sys.meta_path if "Ray" in type(f).__name__]))
"""
    done = run("-c", code, cwd=tmp_path, path=installed_ray(tmp_path), as_ray=False)
    assert done.stdout.splitlines() == ["the real Ray", "the real Ray", "ray False 1"], done.stderr


def test_install_without_children_leaves_the_environment_alone(tmp_path: Path) -> None:
    code = """
import os
before = dict(os.environ)
from rabbitry.as_ray import install
install(children=False)
import ray
print(dict(os.environ) == before, ray.__name__)
"""
    assert run("-c", code, cwd=tmp_path, as_ray=False).stdout == "True ray\n"


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_children_of_multiprocessing_reach_rabbitry(tmp_path: Path, method: str) -> None:
    program = write(
        tmp_path / "prog.py",
        f"""
        import multiprocessing
        import ray
        from ray.util import scheduling_strategies

        def names(_):
            import ray.exceptions
            return ray.exceptions.__name__, scheduling_strategies.__name__

        if __name__ == "__main__":
            with multiprocessing.get_context({method!r}).Pool(1) as pool:
                print(pool.map(names, [0])[0])
        """,
    )
    expected = str(("rabbitry.exceptions", "rabbitry.util.scheduling_strategies"))
    assert output(program, cwd=tmp_path, path=installed_ray(tmp_path)) == [expected]


def test_tasks_and_their_children_reach_rabbitry(tmp_path: Path) -> None:
    write(tmp_path / "beside.py", "import ray.exceptions\nNAME = ray.exceptions.__name__")
    program = write(
        tmp_path / "prog.py",
        """
        import subprocess, sys
        import ray

        class Point:  # of __main__: travels by value
            def __init__(self, x):
                self.x = x

        def double(x):
            return 2 * x

        @ray.remote
        def task(point):
            import beside
            import ray.util
            child = subprocess.run(
                [sys.executable, "-c", "import ray.util; print(ray.util.__name__)"],
                capture_output=True, text=True, check=True, timeout=20,
            )
            return Point(double(point.x)), ray.util.__name__, beside.NAME, child.stdout.strip()

        ray.init(num_cpus=1, log_to_driver=False)
        point, *names = ray.get(task.remote(Point(21)), timeout=25)
        print(type(point) is Point, point.x, *names)
        """,
    )
    assert output(program, cwd=tmp_path, path=installed_ray(tmp_path)) == [
        "True 42 rabbitry.util rabbitry.exceptions rabbitry.util"
    ]


def test_rays_libraries_are_rabbitrys_in_programs_and_in_tasks(tmp_path: Path) -> None:
    program = write(
        tmp_path / "prog.py",
        """
        import ray
        import ray.util.multiprocessing
        from ray.util import ActorPool
        from ray.util.queue import Empty, Queue

        @ray.remote
        class Doubler:
            def double(self, x):
                return 2 * x

        @ray.remote
        def task(queue):
            from ray.util.joblib import register_ray
            from ray.util.multiprocessing import Pool
            from ray.util.queue import Empty
            pool = ActorPool([Doubler.remote()])
            doubled = list(pool.map(lambda actor, x: actor.double.remote(x), [1, 2]))
            with Pool(1) as pool:
                try:
                    queue.get_nowait()
                except Empty:
                    queue.put([doubled, pool.map(abs, [-1, -2]), register_ray.__module__])

        ray.init(num_cpus=2, log_to_driver=False)
        queue = Queue()
        ray.get(task.remote(queue), timeout=25)
        print(queue.get(timeout=5), Queue.__module__, ray.util.multiprocessing.Pool.__module__)
        """,
    )
    assert output(program, cwd=tmp_path, path=installed_ray(tmp_path)) == [
        "[[2, 4], [1, 2], 'rabbitry.util.joblib'] rabbitry.util.queue rabbitry.util.multiprocessing.pool"
    ]


ERRORS = """
import pickle, sys
import ray
from ray.exceptions import ActorDiedError, GetTimeoutError, RayTaskError

class Own(GetTimeoutError):
    pass

errors = [ActorDiedError(), GetTimeoutError("late"), RayTaskError("f", "text", ValueError("x")).as_instanceof_cause()]
print([f"{type(each).__module__}.{type(each).__name__}" for each in errors], type(errors[2].cause).__name__)
print(pickle.dumps(errors).hex())
again = pickle.loads(pickle.dumps([Own("own"), *errors]))
print([type(each).__name__ for each in again], pickle.loads(pickle.dumps(RayTaskError)) is RayTaskError)
"""


def test_errors_go_by_rays_names_and_are_read_by_who_does_not_know_them(tmp_path: Path) -> None:
    write(tmp_path / "errors.py", ERRORS)
    shown, pickled, again = output("errors.py", cwd=tmp_path)
    assert shown == (
        "['ray.exceptions.ActorDiedError', 'ray.exceptions.GetTimeoutError', "
        "'ray.exceptions.RayTaskError(ValueError)'] ValueError"
    )
    assert again == "['Own', 'ActorDiedError', 'GetTimeoutError', 'RayTaskError(ValueError)'] True"
    # Here nothing is called `ray`.
    died, late, failed = pickle.loads(bytes.fromhex(pickled))
    assert (type(died), type(late), str(late)) == (exceptions.ActorDiedError, exceptions.GetTimeoutError, "late")
    assert isinstance(failed, exceptions.TaskError) and isinstance(failed, ValueError)
    assert type(failed).__name__ == "TaskError(ValueError)"
