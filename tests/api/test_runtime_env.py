"""Runtime environments: environment variables, and clear refusals of the rest."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from warren.runtime_env import RuntimeEnv, check_runtime_env, merge_runtime_envs


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


@pytest.mark.parametrize(
    "field", ["pip", "conda", "uv", "working_dir", "py_modules", "container", "image_uri", "config"]
)
def test_fields_of_ray_that_warren_lacks_say_so(field: str) -> None:
    with pytest.raises(ValueError, match=f"'{field}' is not supported by warren"):
        check_runtime_env({field: "x"})
    with pytest.raises(ValueError, match="not supported"):
        RuntimeEnv(**dict[str, Any]({field: "x"}))


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no field 'env_var'\. Did you mean 'env_vars'\?"):
        check_runtime_env({"env_var": {"A": "1"}})


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
