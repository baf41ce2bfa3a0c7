"""Runtime environments: what is checked at the line that wrote it, what is kept, what children inherit."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from rabbitry import environment, job_environment
from rabbitry.runtime_env import (
    RuntimeEnv,
    RuntimeEnvConfig,
    RuntimeEnvPlugin,
    check_for_task,
    check_runtime_env,
    merge_runtime_envs,
)
from rabbitry.runtime_env.plugins import VARIABLE, PluginError


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        ({}, None),
        ({"env_vars": {}}, None),
        ({"env_vars": None, "pip": None}, None),
        ({"env_vars": {"A": "1"}}, {"env_vars": {"A": "1"}}),
        (RuntimeEnv(env_vars={"A": "1"}), {"env_vars": {"A": "1"}}),
    ],
)
def test_what_is_kept(given: Any, kept: Any) -> None:
    assert check_runtime_env(given) == kept


@pytest.mark.parametrize("field", ["java_jars", "nsight", "_nsight", "rocprof_sys"])
def test_fields_of_ray_that_rabbitry_lacks_say_so(field: str) -> None:
    with pytest.raises(ValueError, match=f"'{field.removeprefix('_')}|{field}' is not supported by rabbitry"):
        check_runtime_env({field: "x"})
    with pytest.raises(ValueError, match="not supported"):
        RuntimeEnv(**dict[str, Any]({field: "x"}))


def test_unknown_fields_are_kept() -> None:
    assert check_runtime_env({"of_mine": {"A": [1]}}) == {"of_mine": {"A": [1]}}
    env = RuntimeEnv(of_mine=1)
    env.set("other", 2)
    assert env == {"of_mine": 1, "other": 2} and RuntimeEnv.deserialize(env.serialize()) == env


def test_an_unknown_field_that_looks_like_a_known_one_is_told() -> None:
    with pytest.warns(UserWarning, match=r"no field 'env_var', .* Did you mean 'env_vars'\?"):
        assert check_runtime_env({"env_var": {"A": "1"}}) == {"env_var": {"A": "1"}}


@pytest.mark.parametrize("fields", [{"of_mine": {1}}, {"of_mine": object()}, {5: 1}])
def test_unknown_fields_that_cannot_travel_are_refused(fields: Any) -> None:
    with pytest.raises(TypeError, match=r"JSON|text"):
        check_runtime_env(fields)


@pytest.mark.parametrize("variables", [{"A": 1}, {1: "A"}, ["A"], "A"])
def test_variables_are_text(variables: Any) -> None:
    with pytest.raises(TypeError, match="dict of text to text"):
        check_runtime_env({"env_vars": variables})


@pytest.mark.parametrize("name", ["", "A=B", "A\0"])
def test_names_that_no_environment_can_hold(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be set"):
        check_runtime_env({"env_vars": {name: "x"}})


def test_the_object_form_is_a_dict_and_can_be_pickled() -> None:
    env = RuntimeEnv(env_vars={"A": "1"})
    assert env == {"env_vars": {"A": "1"}}
    assert (env.env_vars(), env.to_dict()) == ({"A": "1"}, {"env_vars": {"A": "1"}})
    again = pickle.loads(pickle.dumps(env))
    assert (type(again), again) == (RuntimeEnv, env)


def test_children_inherit_variable_by_variable() -> None:
    parent = {"env_vars": {"A": "1", "B": "1"}}
    assert merge_runtime_envs(parent, {"env_vars": {"B": "2"}}) == {"env_vars": {"A": "1", "B": "2"}}
    assert merge_runtime_envs(parent, None) == parent
    assert merge_runtime_envs(None, parent) == parent
    assert merge_runtime_envs(None, None) is None


def test_of_fields_that_say_which_python_runs_the_childs_stands() -> None:
    parent = {"pip": {"packages": ["a"]}, "working_dir": "gcs://a.zip", "env_vars": {"A": "1"}}
    assert merge_runtime_envs(parent, {"conda": "base"}) == {
        "conda": "base",
        "working_dir": "gcs://a.zip",
        "env_vars": {"A": "1"},
    }
    assert merge_runtime_envs(parent, {"image_uri": "image"}) == {"image_uri": "image", "env_vars": {"A": "1"}}


# -- fields ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test, with what fields may name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("module.py", "code.zip", "some-1.0-py3-none-any.whl", "notes.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "requirements.txt").write_text("b\na\nb\n\n")
    (tmp_path / "nested.txt").write_text("-r requirements.txt\n")
    (tmp_path / "conda.yaml").write_text("dependencies: [a]\n")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"working_dir": "folder"}, {"working_dir": "folder"}),
        ({"working_dir": Path("code.zip")}, {"working_dir": "code.zip"}),
        ({"working_dir": "s3://bucket/code.zip"}, {"working_dir": "s3://bucket/code.zip"}),
        ({"working_dir": "local:///opt/code"}, {"working_dir": "local:///opt/code"}),
        ({"working_dir": "auto"}, {"working_dir": "auto"}),
        ({"py_modules": ["folder", "module.py", Path("some-1.0-py3-none-any.whl")]},
         {"py_modules": ["folder", "module.py", "some-1.0-py3-none-any.whl"]}),
        ({"py_modules": [json]}, {"py_modules": [str(Path(json.__file__).parent)]}),
        ({"py_modules": [pickle]}, {"py_modules": [pickle.__file__]}),
        ({"py_modules": ["https://host/a.whl"]}, {"py_modules": ["https://host/a.whl"]}),
        ({"py_modules": []}, None),
        ({"excludes": ["*.bin"]}, {"excludes": ["*.bin"]}),
        ({"excludes": []}, None),
        ({"pip": ["a", "b", "a"]}, {"pip": {"packages": ["a", "b"], "pip_check": False}}),
        ({"pip": []}, None),
        ({"pip": "requirements.txt"}, {"pip": {"packages": ["b", "a"], "pip_check": False}}),
        ({"pip": {"packages": "requirements.txt", "pip_version": "==23"}},
         {"pip": {"packages": ["b", "a"], "pip_version": "==23", "pip_check": False}}),
        ({"uv": ["a"]}, {"uv": {"packages": ["a"], "uv_check": False}}),
        ({"conda": "conda.yaml"}, {"conda": {"dependencies": ["a"]}}),
        ({"conda": "base"}, {"conda": "base"}),
        ({"conda": {"dependencies": []}}, {"conda": {"dependencies": []}}),
        ({"py_executable": "uv run python"}, {"py_executable": "uv run python"}),
        ({"worker_process_setup_hook": "a.b"}, {"worker_process_setup_hook": "a.b"}),
        ({"worker_process_setup_hook": print}, {"worker_process_setup_hook": print}),
        ({"config": {"setup_timeout_seconds": 5}},
         {"config": {"setup_timeout_seconds": 5, "eager_install": True, "log_files": []}}),
        ({"image_uri": "docker.io/a/b:1"}, {"image_uri": "docker.io/a/b:1"}),
        ({"container": {"image": "a", "run_options": ["-x"]}}, {"container": {"image": "a", "run_options": ["-x"]}}),
        ({"preload": ["json", "os.path", "json"]}, {"preload": ["json", "os.path"]}),
        ({"_ray_commit": "x", "env_vars": {"A": "1"}}, {"env_vars": {"A": "1"}}),
    ],
)  # fmt: skip
def test_fields_are_kept_in_one_form(there: Path, given: Any, kept: Any) -> None:
    assert check_runtime_env(given) == kept
    assert RuntimeEnv(**given) == (kept or {})


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"working_dir": 7}, TypeError, "working_dir"),
        ({"working_dir": "nowhere"}, ValueError, "nowhere is not a valid path"),
        ({"working_dir": "notes.txt"}, ValueError, "a directory or an archive"),
        ({"working_dir": "s3://bucket/code"}, ValueError, "Only .zip, .tar.gz, .tgz, .tar.xz files are supported"),
        ({"working_dir": "https://h/a.whl?token=secret"}, ValueError, r"got https://h/a.whl\."),
        ({"working_dir": "nosuchscheme://a.zip"}, ValueError, "not a valid URI"),
        ({"working_dir": "local://relative"}, ValueError, "absolute path"),
        ({"working_dir": "a\0b"}, ValueError, "NUL"),
        ({"py_modules": "folder"}, TypeError, "a list of"),
        ({"py_modules": [7]}, TypeError, "an imported module"),
        ({"py_modules": ["notes.txt"]}, ValueError, "none of these"),
        ({"excludes": "*.bin"}, TypeError, "excludes"),
        ({"pip": 7}, TypeError, "a list of requirements"),
        ({"pip": [7]}, TypeError, "list of text"),
        ({"pip": "nowhere.txt"}, ValueError, "not a valid file"),
        ({"pip": "nested.txt"}, ValueError, "name other files"),
        ({"pip": {"packages": ["a"], "bogus": 1}}, ValueError, "can only have these fields"),
        ({"pip": {"pip_check": True}}, ValueError, "must include field 'packages'"),
        ({"pip": {"packages": ["a"], "pip_check": 1}}, TypeError, "pip_check"),
        ({"pip": {"packages": ["a"], "pip_install_options": "x"}}, TypeError, "pip_install_options"),
        ({"uv": {"packages": "requirements.txt"}}, ValueError, "must be a list of text"),
        ({"uv": {"packages": ["a"], "uv_version": 1}}, TypeError, "uv_version"),
        ({"conda": 7}, TypeError, "conda"),
        ({"conda": "nowhere.yml"}, ValueError, "Can't find conda YAML file"),
        ({"conda": "/no/such/environment"}, ValueError, "Can't find conda env directory"),
        ({"py_executable": ["python"]}, TypeError, "py_executable"),
        ({"py_executable": ""}, ValueError, "empty"),
        ({"py_executable": "a 'b"}, ValueError, "no command"),
        ({"worker_process_setup_hook": "noname"}, ValueError, "module.function"),
        ({"worker_process_setup_hook": 7}, TypeError, "a function"),
        ({"config": {"setup_timeout_seconds": 0}}, ValueError, "greater than zero"),
        ({"config": {"setup_timeout_seconds": "1"}}, TypeError, "setup_timeout_seconds"),
        ({"config": {"eager_install": 1}}, TypeError, "eager_install"),
        ({"config": {"log_files": "x"}}, TypeError, "log_files"),
        ({"config": 7}, TypeError, "config"),
        ({"image_uri": "--privileged"}, ValueError, "no name of a container image"),
        ({"image_uri": 7}, TypeError, "image_uri"),
        ({"container": "image"}, TypeError, "container"),
        ({"container": {"image": "a", "bogus": 1}}, ValueError, "bogus"),
        ({"preload": "torch"}, TypeError, "list of text"),
        ({"preload": ["to rch"]}, ValueError, "names of modules"),
        ({"pip": ["a"], "conda": "b"}, ValueError, "cannot be specified at the same time"),
        ({"pip": ["a"], "py_executable": "python"}, ValueError, "says which Python runs"),
        ({"image_uri": "a", "working_dir": "folder"}, ValueError, "cannot be used together"),
    ],
)
def test_what_cannot_be_is_told_at_once(there: Path, given: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        check_runtime_env(given)


@pytest.mark.parametrize("env", [{"working_dir": "folder"}, {"working_dir": "auto"}, {"py_modules": ["module.py"]}])
def test_tasks_cannot_name_what_is_on_this_machine(there: Path, env: Any) -> None:
    with pytest.raises(ValueError, match=r"is not a valid URI\. .* for a whole job only"):
        check_for_task(env)
    assert check_for_task({"working_dir": "gcs://a.zip", "excludes": ["a"]}) == {"working_dir": "gcs://a.zip"}


def test_methods_are_those_of_ray(there: Path) -> None:
    env = RuntimeEnv(working_dir="folder", pip=["a"], config={"eager_install": False}, preload=["json"])
    assert env.has_working_dir() and env.working_dir() == env.working_dir_uri() == "folder"
    assert env.has_pip() and env.pip_config()["packages"] == ["a"] and env.virtualenv_name() is None
    assert env.pip_uri() and env.pip_uri().startswith("pip://") and env.conda_uri() is None and env.uv_uri() is None
    assert not env.has_uv() and env.uv_config() == {} and not env.has_conda()
    assert env.py_modules() == env.py_modules_uris() == [] and env.plugin_uris() == [] and env.java_jars() == []
    assert env.py_executable() is None and env.image_uri() is None and env.nsight() is env.rocprof_sys() is None
    assert RuntimeEnv.deserialize(env.serialize()) == env.to_dict()
    assert env.get("nothing", 5) == 5 and isinstance(env["config"], RuntimeEnvConfig)
    assert env.get("config", data_class=RuntimeEnvConfig) == RuntimeEnvConfig(eager_install=False)
    assert env.get_extension("_ray_commit") is None
    with pytest.raises(ValueError, match="Extension key"):
        env.get_extension("pip")
    env.set("env_vars", {"A": "1"})
    assert env.env_vars() == {"A": "1"}
    with pytest.raises(TypeError):
        env["env_vars"] = {"A": 1}
    conda = RuntimeEnv(conda={"dependencies": ["a"]})
    assert conda.has_conda() and json.loads(conda.conda_config() or "") == {"dependencies": ["a"]}
    assert conda.conda_env_name() is None and RuntimeEnv(conda="base").conda_env_name() == "base"
    image = RuntimeEnv(container={"image": "a", "worker_path": "b", "run_options": ["-x"]})
    assert image.has_py_container() and image.py_container_image() == "a"
    assert (image.py_container_worker_path(), image.py_container_run_options()) == ("b", ["-x"])
    assert env.py_container_image() is env.py_container_worker_path() is env.py_container_run_options() is None
    assert env.plugins() == []
    assert pickle.loads(pickle.dumps(env)) == env


def test_config_has_rays_defaults(caplog: pytest.LogCaptureFixture) -> None:
    default = RuntimeEnvConfig.default_config()
    assert default == {"setup_timeout_seconds": 600, "eager_install": True, "log_files": []}
    assert RuntimeEnvConfig.parse_and_validate_runtime_env_config({"bogus": 1}) == default
    assert "bogus" in caplog.text
    assert pickle.loads(pickle.dumps(default)) == default == default.to_dict()


class Dotenv(RuntimeEnvPlugin):
    name = "dotenv"

    @staticmethod
    def validate(runtime_env_dict: dict[str, Any]) -> None:
        if runtime_env_dict["dotenv"] == "wrong":
            raise ValueError("dotenv cannot be wrong")


def test_plugins_add_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps([{"class": f"{__name__}.Dotenv"}]))
    assert check_runtime_env({"dotenv": "right"}) == {"dotenv": "right"}
    assert RuntimeEnv(dotenv="right").plugins() == [("dotenv", "right")]
    with pytest.raises(ValueError, match="dotenv cannot be wrong"):
        check_runtime_env({"dotenv": "wrong"})
    with pytest.raises(TypeError, match="what JSON can hold"):
        check_runtime_env({"dotenv": object()})
    for wrong in ("no JSON", '[{"class": "no.such.Plugin"}]', '[{"class": "json.dumps"}]'):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(PluginError):
            check_runtime_env({"dotenv": "right"})


def test_a_submitted_job_and_its_program_must_not_contradict_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"runtime_env": {"working_dir": "gcs://a.zip", "env_vars": {"A": "job"}}}
    monkeypatch.setenv(environment.JOB_CONFIG, json.dumps(job))
    assert job_environment.given(None) == job["runtime_env"]
    both = {"env_vars": {"A": "program", "B": "2"}}
    assert job_environment.given({"env_vars": {"B": "2"}})["env_vars"] == {"A": "job", "B": "2"}
    with pytest.raises(ValueError, match=r"sets env_vars\['A'\]"):
        job_environment.given(both)
    monkeypatch.setenv(environment.OVERRIDE_JOB_RUNTIME_ENV[0], "1")
    assert job_environment.given(both)["env_vars"] == {"A": "program", "B": "2"}
    monkeypatch.setenv(environment.JOB_CONFIG, "{")
    with pytest.raises(ValueError, match="none of ours"):
        job_environment.given(None)
