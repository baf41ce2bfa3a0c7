"""Names of Ray that do little here: what they say, and that they say it."""

from __future__ import annotations

from typing import Any

import pytest

import rabbitry
from rabbitry import cloudpickle
from rabbitry.util import get_node_instance_id
from rabbitry.util.check_open_ports import check_open_ports


def test_ray_client_says_what_to_write_instead() -> None:
    for use in (lambda: rabbitry.init("ray://head:10001"), lambda: rabbitry.client("ray://head:10001")):
        with pytest.raises(ValueError, match=r"no Ray Client.*init\(address='amqp://"):
            use()


def test_a_client_builder_gathers_arguments_of_init(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("rabbitry.session.init", lambda **options: given.update(options))
    with pytest.warns(DeprecationWarning, match="use init"):
        rabbitry.client("auto").env({"env_vars": {}}).namespace("mine").connect()
    assert given == {"address": "auto", "runtime_env": {"env_vars": {}}, "namespace": "mine"}
    assert isinstance(rabbitry.client(), rabbitry.ClientBuilder)
    assert rabbitry.client.Client, "it is still the module"


def test_a_client_builder_reads_what_is_not_given_from_rays_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr("rabbitry.session.init", lambda **options: given.append(options))
    monkeypatch.setenv("RAY_NAMESPACE", "theirs")
    monkeypatch.setenv("RAY_RUNTIME_ENV", '{"env_vars": {"A": "1"}}')
    with pytest.warns(DeprecationWarning, match="use init"):
        rabbitry.client("auto").connect()
    with pytest.warns(DeprecationWarning, match="use init"):
        rabbitry.client("auto").env({"env_vars": {}}).namespace("mine").connect()
    theirs = {"address": "auto", "namespace": "theirs", "runtime_env": {"env_vars": {"A": "1"}}}
    assert given == [theirs, {"address": "auto", "namespace": "mine", "runtime_env": {"env_vars": {}}}]
    for nonsense in ("{", "[1]", "[" * 100_000):
        monkeypatch.setenv("RAY_RUNTIME_ENV", nonsense)
        with pytest.raises(ValueError, match="RAY_RUNTIME_ENV must be a JSON object"):
            rabbitry.client("auto").connect()


def test_the_id_of_the_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_CLOUD_INSTANCE_ID", raising=False)
    assert get_node_instance_id() == ""
    monkeypatch.setenv("RAY_CLOUD_INSTANCE_ID", "i-1")
    assert get_node_instance_id() == "i-1"


def test_open_ports(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RABBITRY_BROKER_URL", "amqp://user:secret@127.0.0.1/vhost")
    monkeypatch.setenv("RABBITRY_STORE_URL", "redis://:secret@8.8.8.8:6380/0")
    assert check_open_ports() == [("RabbitMQ", "127.0.0.1:5672", False), ("Redis", "8.8.8.8:6380", True)]
    said = capsys.readouterr().out
    assert "secret" not in said and "public address 8.8.8.8" in said
    monkeypatch.delenv("RABBITRY_STORE_URL")
    assert len(check_open_ports()) == 1


def test_the_module_that_may_be_called_is_sent_by_its_name() -> None:
    # cloudpickle takes it along with a function that uses `rabbitry` and anything named `client`.
    assert cloudpickle.loads(cloudpickle.dumps(rabbitry.client)) is rabbitry.client
