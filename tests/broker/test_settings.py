"""Settings are checked where they enter, say where a wrong one came from, and show no secret."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from warren_broker.settings import Settings, SettingsError

SECRET = "a-secret-of-16-characters"
PASSWORD = "hunter2"
ENVIRONMENT = {
    "WARREN_BROKER_URL": f"amqp://ada:{PASSWORD}@mq.example/jobs",
    "WARREN_STORE_URL": f"redis://:{PASSWORD}@cache.example:6380/2",
    "WARREN_SECRET": SECRET,
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
    assert endpoint.broker_url == ENVIRONMENT["WARREN_BROKER_URL"]
    assert endpoint.store_url == ENVIRONMENT["WARREN_STORE_URL"]
    assert endpoint.secrets == (SECRET.encode(),)
    assert endpoint.prefix == "warren:"


def test_arguments_win_over_environment_and_that_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text(
        f"WARREN_BROKER_URL=amqp://file\nWARREN_STORE_URL=redis://file\nexport WARREN_SECRET='{SECRET}$x'  # comment\n"
        "WARREN_NODE_LEASE=7\nWARREN_PREFIX=file\n"
    )
    monkeypatch.chdir(tmp_path)
    environment = {"WARREN_STORE_URL": "redis://environment", "WARREN_NODE_LEASE": "8", "WARREN_PREFIX": ""}
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
    assert Settings.load().endpoint().broker_url == ENVIRONMENT["WARREN_BROKER_URL"]


def test_address_variable_stands_for_the_address() -> None:
    settings = Settings.load(environment={**ENVIRONMENT, "WARREN_ADDRESS": "amqps://other"}, env_file=None)
    assert settings.endpoint().broker_url == "amqps://other"
    settings = Settings.load(environment={**ENVIRONMENT, "WARREN_ADDRESS": "auto"}, env_file=None)
    assert settings.endpoint().broker_url == ENVIRONMENT["WARREN_BROKER_URL"]


def test_several_secrets_are_newest_first() -> None:
    newer = "b" * 16
    environment = {**ENVIRONMENT, "WARREN_SECRET": f" {newer}, {SECRET},"}
    assert Settings.load(environment=environment, env_file=None).endpoint().secrets == (newer.encode(), SECRET.encode())


def test_zero_means_no_limit() -> None:
    environment = {**ENVIRONMENT, "WARREN_OBJECT_TTL": "0", "WARREN_SHARED_MEMORY_LIMIT": "0"}
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
    for name in ("WARREN_BROKER_URL", "WARREN_STORE_URL", "WARREN_SECRET"):
        assert name in str(caught.value)


def test_the_missing_one_is_named() -> None:
    assert _error(WARREN_STORE_URL=None).endswith("not found in the environment: WARREN_STORE_URL")
    assert "pass store='redis://...' or set WARREN_STORE_URL" in _error("amqp://mq", WARREN_STORE_URL=None)
    assert "set WARREN_SECRET" in _error(f"amqp://ada:{PASSWORD}@mq", WARREN_SECRET=None)


@pytest.mark.parametrize(
    ("variable", "value", "texts"),
    [
        ("WARREN_BROKER_URL", "localhost:5672", ["WARREN_BROKER_URL", "not a URL", "amqp://"]),
        ("WARREN_BROKER_URL", "ray://head:10001", ["ray://head:10001", "amqps"]),
        ("WARREN_BROKER_URL", "amqp://", ["no host"]),
        ("WARREN_BROKER_URL", f"amqp://ada:pa/{PASSWORD}@mq", ["percent-encode"]),
        ("WARREN_BROKER_URL", f"amqp://ada:[{PASSWORD}@mq", ["percent-encode"]),
        ("WARREN_BROKER_URL", f"ada:{PASSWORD}@mq", ["not a URL"]),
        ("WARREN_STORE_URL", PASSWORD, ["WARREN_STORE_URL: it is not a URL"]),
        ("WARREN_STORE_URL", "http://cache", ["http://cache", "rediss"]),
        ("WARREN_STORE_URL", "unix://", ["path of the socket"]),
        ("WARREN_SECRET", "short", ["WARREN_SECRET: secret number 1 has 5 characters", "16"]),
        ("WARREN_SECRET", f"{SECRET},short", ["secret number 2"]),
        ("WARREN_SECRET", " , ", ["no secret"]),
        ("WARREN_PREFIX", "{a}:", ["WARREN_PREFIX='{a}:'", "'{}' is not allowed"]),
        ("WARREN_PREFIX", "a" * 65, ["64"]),
        ("WARREN_NODE_LEASE", "soon", ["WARREN_NODE_LEASE='soon'", "number"]),
        ("WARREN_NODE_LEASE", "0", ["WARREN_NODE_LEASE='0'", "0.5"]),
        ("WARREN_OBJECT_TTL", "-3", ["WARREN_OBJECT_TTL='-3'"]),
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
    message = _error(WARREN_NODE_LEASE="x", WARREN_PREFIX="?")
    assert "WARREN_NODE_LEASE" in message and "WARREN_PREFIX" in message


def test_wrong_value_in_the_file_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "my.env"
    file.write_text("WARREN_NODE_LEASE=x\n")
    with pytest.raises(SettingsError, match=r"WARREN_NODE_LEASE in .*my\.env='x'"):
        Settings.load(environment=ENVIRONMENT, env_file=file)


@pytest.mark.parametrize("url", ["unix:///run/redis.sock", "rediss://cache:6380/1", "redis+sentinel://a:1,b:2/main"])
def test_addresses_of_every_kind_of_store_are_taken(url: str) -> None:
    assert Settings.load(store=url, environment=ENVIRONMENT, env_file=None).endpoint().store_url == url


def test_the_embedded_path_does_not_import_pydantic() -> None:
    program = (
        "import sys, warren_broker.signing, warren_broker.resources, warren_broker.endpoint, "
        "warren_broker.embedded_server, warren_broker.shared_memory, warren_broker.machine\n"
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
