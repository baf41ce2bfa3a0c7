"""`annotations`, `debug`, `get_node_ip_address`, `JobConfig`: what libraries written for Ray import."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from rabbitry import cloudpickle
from rabbitry.job_config import JobConfig
from rabbitry.util import debug, get_node_ip_address, log_once
from rabbitry.util.annotations import Deprecated, DeveloperAPI, PublicAPI, RayDeprecationWarning


def test_marks_change_nothing_else() -> None:
    @PublicAPI
    def bare() -> int:
        return 1

    @PublicAPI(stability="alpha")
    class Options:
        pass

    @PublicAPI(stablity="alpha")  # as in Ray 2.48: its libraries could not be imported else
    def misspelt() -> int:
        return 3

    @Deprecated(mesage="Use the other.")
    def outdated() -> int:
        return 4

    @DeveloperAPI
    def developers() -> int:
        return 2

    marks: list[Any] = [bare, Options, developers]
    assert (bare(), developers(), misspelt(), outdated()) == (1, 2, 3, 4)
    assert [each._annotated_type for each in marks] == ["PublicAPI", "PublicAPI", "DeveloperAPI"]
    with pytest.raises(ValueError, match="stability"):
        PublicAPI(stability="solid")


def test_what_is_deprecated_may_warn() -> None:
    @Deprecated(message="Use the other.", warning=True)
    def old(a: int) -> int:
        return a

    @Deprecated
    def quiet() -> int:
        return 3

    @Deprecated(warning=True)
    class Old:
        def __init__(self, a: int) -> None:
            self.a = a

    with pytest.warns(RayDeprecationWarning, match="old is deprecated. Use the other."):
        assert old(2) == 2
    with pytest.warns(RayDeprecationWarning, match="Old is deprecated"):
        assert Old(4).a == 4
    assert quiet() == 3


def test_log_once_is_true_once_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    debug.reset_log_once()
    assert [log_once("a"), log_once("a"), log_once("b")] == [True, False, True]
    debug.reset_log_once("a")
    assert [log_once("a"), log_once("b")] == [True, False]
    monkeypatch.setattr(debug, "_periodic", True)
    monkeypatch.setattr(debug, "PERIOD_SECONDS", -1.0)
    assert log_once("a")
    monkeypatch.setattr(debug, "_disabled", True)
    assert not log_once("c")


def test_the_address_is_one() -> None:
    ipaddress.ip_address(get_node_ip_address())


def test_cloudpickle_takes_functions() -> None:
    assert cloudpickle.loads(cloudpickle.dumps(lambda: 5))() == 5


def test_job_config_is_checked() -> None:
    config = JobConfig(ray_namespace="n", metadata={"a": "b"}, runtime_env={"env_vars": {"A": "b"}})
    assert (config.ray_namespace, config.metadata) == ("n", {"a": "b"})
    assert config.runtime_env == {"env_vars": {"A": "b"}}
    for bad in ({"ray_namespace": 3}, {"metadata": {"a": 1}}, {"runtime_env": 3}):
        with pytest.raises(TypeError):
            JobConfig(**bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lifetime='detached'"):
        JobConfig(default_actor_lifetime="detached")
