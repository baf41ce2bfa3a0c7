"""Settings of a process that takes part in a cluster: from arguments, the environment and a `.env` file.

What is given as an argument wins over the environment, and that over `.env` in the working directory. All is checked
here, once; inside it is immutable. No secret and no password shows in a repr, a log or an error.

Not for the embedded engine: it makes its own `Endpoint`, and pydantic takes longer to import than `init()` may.

| variable | argument | meaning |
|---|---|---|
| RABBITRY_BROKER_URL | address | RabbitMQ, `amqp://` or `amqps://`; several servers by commas |
| RABBITRY_STORE_URL | store | Redis, `redis://`, `rediss://`, `redis+sentinel://`, `redis+cluster://` or `unix://` |
| RABBITRY_SECRET | secret | what messages are signed with, the same everywhere; several, by commas, newest first |
| RABBITRY_QUEUE_TYPE | queue_type | queues of RabbitMQ: `quorum`, `classic`, or `auto`, see `broker_address` |
| RABBITRY_PREFIX | prefix | what all keys and queues begin with, `rabbitry:` |
| RABBITRY_NODE_LEASE | node_lease | seconds without a sign of life after which a node counts as dead |
| RABBITRY_CLIENT_LEASE | client_lease | the same for a driver, whose objects then go |
| RABBITRY_CONNECT_TIMEOUT | connect_timeout | seconds to reach a server at start |
| RABBITRY_OBJECT_TTL | object_ttl | seconds after which an object is deleted whoever holds it; 0 for never |
| RABBITRY_SPILL_URL | spill_url | directory or fsspec URL that large objects go to when the store is full, or off |
| RABBITRY_EXECUTOR_MEMORY_LIMIT | | for nodes: bytes that an executor may take for itself; 0 for no limit |
| RABBITRY_SHARED_MEMORY_LIMIT | shared_memory_limit | bytes of shared memory for objects on a host; 0 for the default |

`RABBITRY_ADDRESS` stands for the address where no address is given: `auto`, or the URL itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from rabbitry_broker import broker_address
from rabbitry_broker.broker_address import AUTO as AUTO_TYPE
from rabbitry_broker.broker_address import with_queue_type
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import RabbitryBrokerError, without_password
from rabbitry_broker.signing import check_secret

AUTO: Final = "auto"
ENV_FILE: Final = ".env"

_VARIABLES: Final = {
    "broker_url": "RABBITRY_BROKER_URL",
    "store_url": "RABBITRY_STORE_URL",
    "secrets": "RABBITRY_SECRET",
    "queue_type": "RABBITRY_QUEUE_TYPE",
    "prefix": "RABBITRY_PREFIX",
    "node_lease": "RABBITRY_NODE_LEASE",
    "client_lease": "RABBITRY_CLIENT_LEASE",
    "connect_timeout": "RABBITRY_CONNECT_TIMEOUT",
    "object_ttl": "RABBITRY_OBJECT_TTL",
    "spill_url": "RABBITRY_SPILL_URL",
    "shared_memory_limit": "RABBITRY_SHARED_MEMORY_LIMIT",
    "executor_memory_limit": "RABBITRY_EXECUTOR_MEMORY_LIMIT",
}
_ARGUMENTS: Final = {"broker_url": "address", "store_url": "store", "secrets": "secret"}
_ADDRESS_VARIABLE: Final = "RABBITRY_ADDRESS"
_BROKER_SCHEMES: Final = ("amqp", "amqps")
_STORE_SCHEMES: Final = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
_PREFIX_EXTRA: Final = frozenset("_-.:")
_HIDDEN: Final = frozenset(("broker_url", "store_url", "secrets", "spill_url"))


class SettingsError(RabbitryBrokerError, ValueError):
    """A setting that is missing or impossible. The message names it, where it came from, and what to write."""


class Settings(BaseModel):
    """The checked, immutable settings of one process. Make them with `load`.

    Attributes:
        broker_url: RabbitMQ.
        store_url: Redis.
        secrets: newest first, at least one, each of 16 characters or more.
        queue_type: of RabbitMQ's queues, "auto" (the default), "classic" or "quorum"; see `broker_address`.
        prefix: of all keys and queues; ends with a colon (added if missing).
        node_lease: seconds without a sign of life after which a node counts as dead. Default 10.
        client_lease: the same for a driver. Default 30.
        connect_timeout: seconds to reach a server at start. Default 5.
        object_ttl: seconds an object lives at most. Default None, no limit.
        spill_url: where large objects go when the store is full. Default None, nowhere.
        shared_memory_limit: bytes of shared memory for objects on a host. Default None, the store's own.
        executor_memory_limit: bytes that an executor may take for itself. Default None, no limit.

    >>> Settings(broker_url="amqp://ada:pw@mq/jobs", store_url="redis://cache", secrets=("0123456789abcdef",))
    Settings(amqp://ada@mq/jobs, redis://cache, 1 secret, prefix='rabbitry:')
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    broker_url: SecretStr
    store_url: SecretStr
    secrets: tuple[SecretStr, ...]
    queue_type: Literal["auto", "classic", "quorum"] = "auto"
    prefix: str = Field("rabbitry:", min_length=1, max_length=64)
    node_lease: float = Field(10.0, ge=0.5, le=3600.0)
    client_lease: float = Field(30.0, ge=0.5, le=86_400.0)
    connect_timeout: float = Field(5.0, gt=0.0, le=600.0)
    object_ttl: float | None = Field(None, ge=1.0)
    spill_url: SecretStr | None = None
    shared_memory_limit: int | None = Field(None, ge=1)
    executor_memory_limit: int | None = Field(None, ge=64 << 20)

    @classmethod
    def load(
        cls,
        address: str | None = None,
        store: str | None = None,
        *,
        secret: str | None = None,
        queue_type: str | None = None,
        prefix: str | None = None,
        node_lease: float | None = None,
        client_lease: float | None = None,
        connect_timeout: float | None = None,
        object_ttl: float | None = None,
        spill_url: str | None = None,
        shared_memory_limit: int | None = None,
        environment: Mapping[str, str] | None = None,
        env_file: str | os.PathLike[str] | None = ENV_FILE,
    ) -> Settings:
        """Return the settings of this process. Arguments that are None come from the environment, then from `.env`.

        Args:
            address: RabbitMQ's URL, or "auto" for RABBITRY_BROKER_URL; None for RABBITRY_ADDRESS, else "auto".
            store: Redis' URL.
            secret: one secret or several, comma separated, newest first.
            queue_type: auto, classic or quorum.
            prefix: of all keys and queues.
            node_lease: seconds.
            client_lease: seconds.
            connect_timeout: seconds.
            object_ttl: seconds, 0 for no limit.
            spill_url: directory or fsspec URL.
            shared_memory_limit: bytes, 0 for the default.
            environment: instead of the process's own.
            env_file: relative to the working directory; one that does not exist is no error; None to read none.

        Raises:
            SettingsError: something is missing or impossible.
        """
        arguments: dict[str, Any] = {
            "store_url": store,
            "secrets": secret,
            "queue_type": queue_type,
            "prefix": prefix,
            "node_lease": node_lease,
            "client_lease": client_lease,
            "connect_timeout": connect_timeout,
            "object_ttl": object_ttl,
            "spill_url": spill_url,
            "shared_memory_limit": shared_memory_limit,
        }
        variables = _Variables(os.environ if environment is None else environment, env_file)
        origins: dict[str, str] = {}
        if address is None:
            address, origin = variables.get(_ADDRESS_VARIABLE)
        else:
            origin = "address"
        if address is not None and address != AUTO:
            arguments["broker_url"] = address
            origins["broker_url"] = origin
        values: dict[str, Any] = {}
        for field, variable in _VARIABLES.items():
            value = arguments.get(field)
            if value is not None:
                origins.setdefault(field, _ARGUMENTS.get(field, field))
            else:
                value, origins[field] = variables.get(variable)
            if value is not None:
                values[field] = value
        _require_addresses(values, variables, address)
        values["secrets"] = tuple(part.strip() for part in str(values["secrets"]).split(",") if part.strip())
        for unlimited in ("object_ttl", "shared_memory_limit", "executor_memory_limit"):
            if str(values.get(unlimited, "")).strip() in ("0", "0.0"):
                del values[unlimited]
        try:
            return cls(**values)
        except ValidationError as error:
            complaint = _complaint(error, values, origins)
        # Raised out here because the validation error holds the values, and would travel along as the context.
        raise SettingsError(complaint)

    def endpoint(self) -> Endpoint:
        """Return what connections are opened with."""
        broker_url = self.broker_url.get_secret_value()
        return Endpoint(
            store_url=self.store_url.get_secret_value(),
            broker_url=broker_url if self.queue_type == AUTO_TYPE else with_queue_type(broker_url, self.queue_type),
            secrets=tuple(secret.get_secret_value().encode() for secret in self.secrets),
            prefix=self.prefix,
        )

    def __repr__(self) -> str:
        broker = without_password(self.broker_url.get_secret_value())
        store = without_password(self.store_url.get_secret_value())
        count = f"{len(self.secrets)} secret{'s' if len(self.secrets) > 1 else ''}"
        return f"Settings({broker}, {store}, {count}, prefix={self.prefix!r})"

    def __str__(self) -> str:
        return repr(self)

    @field_validator("broker_url")
    @classmethod
    def _check_broker(cls, url: SecretStr) -> SecretStr:
        example = "RabbitMQ, amqp://user:password@host:5672/vhost"
        _check_url(url.get_secret_value(), _BROKER_SCHEMES, example)
        for each in broker_address.parse(url.get_secret_value()).urls:
            _check_url(each, _BROKER_SCHEMES, example)
        return url

    @field_validator("store_url")
    @classmethod
    def _check_store(cls, url: SecretStr) -> SecretStr:
        _check_url(url.get_secret_value(), _STORE_SCHEMES, "Redis, redis://:password@host:6379/0")
        return url

    @field_validator("secrets")
    @classmethod
    def _check_secrets(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not secrets:
            raise ValueError("it holds no secret; one of 16 characters or more is needed")
        for number, secret in enumerate(secrets, 1):
            check_secret(secret.get_secret_value().encode(), number)
        return secrets

    @field_validator("prefix")
    @classmethod
    def _check_prefix(cls, prefix: str) -> str:
        odd = sorted({char for char in prefix if not (char.isascii() and char.isalnum()) and char not in _PREFIX_EXTRA})
        if odd:
            raise ValueError(f"{''.join(odd)!r} is not allowed in it; use ASCII letters, digits, '_', '-', '.' and ':'")
        # Without an end mark the keys of a cluster `a` could be taken for those of `ab`.
        return prefix if prefix.endswith(":") else prefix + ":"


def names_variables(env_file: str | os.PathLike[str], names: Iterable[str]) -> bool:
    """Return True if a `.env` file sets any of these variables.

    Raises:
        SettingsError: it cannot be read.
    """
    variables = _Variables({}, env_file)
    return any(variables.get(name)[0] for name in names)


class _Variables:
    """The environment over the `.env` file. An empty variable counts as not set."""

    def __init__(self, environment: Mapping[str, str], env_file: str | os.PathLike[str] | None) -> None:
        self._environment = environment
        self._path = None if env_file is None else Path(env_file).absolute()
        self._file: dict[str, str | None] = {}
        if self._path is not None and self._path.is_file():
            try:
                # No interpolation: a `$` in a password is a `$`.
                self._file = dotenv_values(self._path, interpolate=False, encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"{self._path} cannot be read: {type(error).__name__}") from error

    def get(self, name: str) -> tuple[str | None, str]:
        """Return the value (None if not set) and what to call its origin in an error."""
        value = self._environment.get(name)
        if value:
            return value, name
        value = self._file.get(name)
        if value:
            return value, f"{name} in {self._path}"
        return None, name

    def places(self) -> str:
        """Return where was looked, for errors."""
        return "the environment" if self._path is None else f"the environment or {self._path}"


def _require_addresses(values: dict[str, Any], variables: _Variables, address: str | None) -> None:
    missing = [field for field in ("broker_url", "store_url", "secrets") if field not in values]
    if not missing:
        return
    names = ", ".join(_VARIABLES[field] for field in missing)
    if address is None or address == AUTO:
        raise SettingsError(
            f"address={AUTO!r} takes the cluster from RABBITRY_BROKER_URL (amqp://user:password@host/vhost), "
            "RABBITRY_STORE_URL (redis://:password@host:6379/0) and RABBITRY_SECRET (16 characters or more, the "
            f"same on all machines); not found in {variables.places()}: {names}"
        )
    remedy = {
        "store_url": "pass store='redis://...' or set RABBITRY_STORE_URL",
        "secrets": "set RABBITRY_SECRET to what the cluster's nodes have (16 characters or more)",
    }
    raise SettingsError(
        f"address{_shown(address)} alone is not enough, not found in {variables.places()}: {names}; "
        + "; ".join(remedy[field] for field in missing if field in remedy)
    )


def _shown(address: str) -> str:
    # A mistyped address may be anything, even the password alone: only what has the form of a URL is shown.
    return f"={without_password(address)!r}" if "://" in address else ""


def _check_url(url: str, schemes: tuple[str, ...], example: str) -> None:
    scheme, separator, _ = url.partition("://")
    if not separator or scheme.lower() not in schemes:
        shown = f"begins with {scheme + '://'!r}" if separator and scheme.isalnum() else "is not a URL"
        raise ValueError(f"it {shown}; needed is the address of {example} (schemes: {', '.join(schemes)})")
    try:
        parts = urlsplit(url)
        if "," not in parts.netloc:  # Several hosts have several ports; who connects takes them apart.
            _ = parts.port
    except ValueError:
        # The parser's own text may hold a piece of the password.
        raise ValueError(
            "its host or port cannot be read; percent-encode special characters of the password (/ is %2F, @ is %40)"
        ) from None
    if scheme == "unix":
        if not parts.path.startswith("/"):
            raise ValueError("the path of the socket is missing; write unix:///path/to/redis.sock")
    elif not parts.netloc.rpartition("@")[2]:
        raise ValueError(f"it has no host; needed is the address of {example}")


def _complaint(error: ValidationError, values: dict[str, Any], origins: dict[str, str]) -> str:
    texts = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        field = str(problem["loc"][0])
        value = values.get(field)
        if field in ("broker_url", "store_url"):
            shown = _shown(str(value))
        else:
            shown = "" if field in _HIDDEN else f"={value!r}"
        texts.append(f"{origins[field]}{shown}: {problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(texts)
