"""Settings are checked where they enter, say where a wrong one came from, and show no secret."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from rabbitry_broker import broker_address
from rabbitry_broker.settings import Settings, SettingsError

SECRET = "a-secret-of-16-characters"
PASSWORD = "hunter2"
ENVIRONMENT = {
    "RABBITRY_BROKER_URL": f"amqp://ada:{PASSWORD}@mq.example/jobs",
    "RABBITRY_STORE_URL": f"redis://:{PASSWORD}@cache.example:6380/2",
    "RABBITRY_SECRET": SECRET,
}


def _error(*args: str, **changes: str | None) -> str:
    """Return the message of the error that loading with this changed environment raises."""
    environment = {name: value for name, value in {**ENVIRONMENT, **changes}.items() if value is not None}
    with pytest.raises(SettingsError) as caught:
        Settings.load(*args, environment=environment, env_file=None)
    for error in (caught.value, caught.value.__cause__, caught.value.__context__):
        assert PASSWORD not in repr(error) and SECRET not in repr(error)
    return str(caught.value)


def test_environment_is_read() -> None:
    endpoint = Settings.load("auto", environment=ENVIRONMENT, env_file=None).endpoint()
    assert endpoint.broker_url == ENVIRONMENT["RABBITRY_BROKER_URL"]
    assert endpoint.store_url == ENVIRONMENT["RABBITRY_STORE_URL"]
    assert endpoint.secrets == (SECRET.encode(),)
    assert endpoint.prefix == "rabbitry:"


def test_arguments_win_over_environment_and_that_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text(
        f"RABBITRY_BROKER_URL=amqp://file\nRABBITRY_STORE_URL=redis://file\n"
        f"export RABBITRY_SECRET='{SECRET}$x'  # comment\nRABBITRY_NODE_LEASE=7\nRABBITRY_PREFIX=file\n"
    )
    monkeypatch.chdir(tmp_path)
    environment = {"RABBITRY_STORE_URL": "redis://environment", "RABBITRY_NODE_LEASE": "8", "RABBITRY_PREFIX": ""}
    settings = Settings.load(store="redis://argument", environment=environment)
    assert settings.endpoint().store_url == "redis://argument"
    assert settings.endpoint().broker_url == "amqp://file"
    assert settings.endpoint().secrets == (f"{SECRET}$x".encode(),)
    assert settings.node_lease == 8.0
    assert settings.prefix == "file:"


def test_the_real_environment_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert Settings.load().endpoint().broker_url == ENVIRONMENT["RABBITRY_BROKER_URL"]


def test_address_variable_stands_for_the_address() -> None:
    settings = Settings.load(environment={**ENVIRONMENT, "RABBITRY_ADDRESS": "amqps://other"}, env_file=None)
    assert settings.endpoint().broker_url == "amqps://other"
    settings = Settings.load(environment={**ENVIRONMENT, "RABBITRY_ADDRESS": "auto"}, env_file=None)
    assert settings.endpoint().broker_url == ENVIRONMENT["RABBITRY_BROKER_URL"]


def test_several_secrets_are_newest_first() -> None:
    newer = "b" * 16
    environment = {**ENVIRONMENT, "RABBITRY_SECRET": f" {newer}, {SECRET},"}
    assert Settings.load(environment=environment, env_file=None).endpoint().secrets == (newer.encode(), SECRET.encode())


def test_zero_means_no_limit() -> None:
    environment = {**ENVIRONMENT, "RABBITRY_OBJECT_TTL": "0", "RABBITRY_SHARED_MEMORY_LIMIT": "0"}
    settings = Settings.load(environment=environment, env_file=None)
    assert settings.object_ttl is None and settings.shared_memory_limit is None
    settings = Settings.load(environment=environment, env_file=None, object_ttl=60, shared_memory_limit=1 << 30)
    assert settings.object_ttl == 60 and settings.shared_memory_limit == 1 << 30


def test_nothing_shows_a_secret() -> None:
    settings = Settings.load(environment=ENVIRONMENT, env_file=None, spill_url=f"s3://key:{PASSWORD}@bucket/path")
    shown = f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()} {[settings]}"
    assert PASSWORD not in shown and SECRET not in shown
    assert "amqp://ada@mq.example/jobs" in repr(settings)


def test_settings_cannot_be_changed_and_survive_pickling() -> None:
    settings = Settings.load(environment=ENVIRONMENT, env_file=None)
    with pytest.raises(ValueError, match="frozen"):
        settings.prefix = "x"
    assert pickle.loads(pickle.dumps(settings)).endpoint() == settings.endpoint() == copy.copy(settings).endpoint()


def test_auto_without_variables_names_the_three() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load("auto", environment={}, env_file=None)
    for name in ("RABBITRY_BROKER_URL", "RABBITRY_STORE_URL", "RABBITRY_SECRET"):
        assert name in str(caught.value)


def test_the_missing_one_is_named() -> None:
    assert _error(RABBITRY_STORE_URL=None).endswith("not found in the environment: RABBITRY_STORE_URL")
    assert "pass store='redis://...' or set RABBITRY_STORE_URL" in _error("amqp://mq", RABBITRY_STORE_URL=None)
    assert "set RABBITRY_SECRET" in _error(f"amqp://ada:{PASSWORD}@mq", RABBITRY_SECRET=None)


@pytest.mark.parametrize(
    ("variable", "value", "texts"),
    [
        ("RABBITRY_BROKER_URL", "localhost:5672", ["RABBITRY_BROKER_URL", "not a URL", "amqp://"]),
        ("RABBITRY_BROKER_URL", "ray://head:10001", ["ray://head:10001", "amqps"]),
        ("RABBITRY_BROKER_URL", "amqp://", ["no host"]),
        ("RABBITRY_BROKER_URL", f"amqp://ada:pa/{PASSWORD}@mq", ["percent-encode"]),
        ("RABBITRY_BROKER_URL", f"amqp://ada:[{PASSWORD}@mq", ["percent-encode"]),
        ("RABBITRY_BROKER_URL", f"ada:{PASSWORD}@mq", ["not a URL"]),
        ("RABBITRY_STORE_URL", PASSWORD, ["RABBITRY_STORE_URL: it is not a URL"]),
        ("RABBITRY_STORE_URL", "http://cache", ["http://cache", "rediss"]),
        ("RABBITRY_STORE_URL", "unix://", ["path of the socket"]),
        ("RABBITRY_SECRET", "short", ["RABBITRY_SECRET: secret number 1 has 5 characters", "16"]),
        ("RABBITRY_SECRET", f"{SECRET},short", ["secret number 2"]),
        ("RABBITRY_SECRET", " , ", ["no secret"]),
        ("RABBITRY_PREFIX", "{a}:", ["RABBITRY_PREFIX='{a}:'", "'{}' is not allowed"]),
        ("RABBITRY_PREFIX", "a" * 65, ["64"]),
        ("RABBITRY_BROKER_URL", f"amqp://ada:{PASSWORD}@mq1,mq2:x", ["host or port"]),
        ("RABBITRY_BROKER_URL", f"amqp://ada:{PASSWORD}@mq?queue_type=stream", ["auto, classic, quorum"]),
        ("RABBITRY_QUEUE_TYPE", "stream", ["RABBITRY_QUEUE_TYPE='stream'", "'quorum'"]),
        ("RABBITRY_NODE_LEASE", "soon", ["RABBITRY_NODE_LEASE='soon'", "number"]),
        ("RABBITRY_NODE_LEASE", "0", ["RABBITRY_NODE_LEASE='0'", "0.5"]),
        ("RABBITRY_OBJECT_TTL", "-3", ["RABBITRY_OBJECT_TTL='-3'"]),
    ],
)
def test_wrong_values_are_named_with_the_remedy(variable: str, value: str, texts: list[str]) -> None:
    message = _error(**{variable: value})
    assert variable in message
    for text in texts:
        assert text in message


def test_wrong_arguments_are_named_as_arguments() -> None:
    assert _error("mq:5672").startswith("address: it is not a URL")
    assert _error("auto", "cache").startswith("store: it is not a URL")


def test_all_wrong_values_are_told_at_once() -> None:
    message = _error(RABBITRY_NODE_LEASE="x", RABBITRY_PREFIX="?")
    assert "RABBITRY_NODE_LEASE" in message and "RABBITRY_PREFIX" in message


def test_wrong_value_in_the_file_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "my.env"
    file.write_text("RABBITRY_NODE_LEASE=x\n")
    with pytest.raises(SettingsError, match=r"RABBITRY_NODE_LEASE in .*my\.env='x'"):
        Settings.load(environment=ENVIRONMENT, env_file=file)


def test_the_type_of_queues_goes_along_in_the_address() -> None:
    several = {**ENVIRONMENT, "RABBITRY_BROKER_URL": f"amqp://ada:{PASSWORD}@mq1,mq2/jobs"}
    assert Settings.load(environment=several, env_file=None).endpoint().broker_url == several["RABBITRY_BROKER_URL"]
    quorum = Settings.load(environment={**several, "RABBITRY_QUEUE_TYPE": "quorum"}, env_file=None).endpoint()
    address = broker_address.parse(quorum.broker_url or "")
    assert address.queue_type == "quorum"
    assert address.urls == (f"amqp://ada:{PASSWORD}@mq1/jobs", f"amqp://ada:{PASSWORD}@mq2/jobs")
    classic = Settings.load(quorum.broker_url, queue_type="classic", environment=ENVIRONMENT, env_file=None).endpoint()
    assert broker_address.parse(classic.broker_url or "").queue_type == "classic", "what is said counts"


@pytest.mark.parametrize("url", ["unix:///run/redis.sock", "rediss://cache:6380/1", "redis+sentinel://a:1,b:2/main"])
def test_addresses_of_every_kind_of_store_are_taken(url: str) -> None:
    assert Settings.load(store=url, environment=ENVIRONMENT, env_file=None).endpoint().store_url == url


def test_the_embedded_path_does_not_import_pydantic() -> None:
    program = (
        "import sys, rabbitry_broker.signing, rabbitry_broker.resources, rabbitry_broker.endpoint, "
        "rabbitry_broker.embedded_server, rabbitry_broker.shared_memory, rabbitry_broker.machine\n"
        "print([name for name in ('pydantic', 'dotenv', 'asyncio', 'numpy', 'redis', 'pika') if name in sys.modules])"
    )
    path = [str(folder) for folder in sys.path if folder]
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{program}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert run.stdout.strip() == "[]"
