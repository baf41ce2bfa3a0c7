"""`ray._raylet`: the names of Ray's compiled core that its Python libraries ask for."""

from __future__ import annotations

import asyncio
import contextvars
from enum import Enum, IntEnum
from typing import Any, Final

import msgspec

from rabbitry.generators import DynamicObjectRefGenerator, ObjectRefGenerator, StreamingGeneratorStats
from rabbitry.ids import (
    ActorClassID,
    ActorID,
    BaseID,
    ClusterID,
    FunctionID,
    JobID,
    NodeID,
    PlacementGroupID,
    TaskID,
    UniqueID,
    WorkerID,
)
from rabbitry.labels import matches, selector_text
from rabbitry.object_ref import ObjectRef
from rabbitry.ray_alias.adapters.addresses import (
    build_address,
    get_all_interfaces_ip,
    get_localhost_ip,
    is_ipv6,
    is_localhost,
    parse_address,
)
from rabbitry.ray_alias.adapters.function_descriptor import PythonFunctionDescriptor
from rabbitry.ray_alias.adapters.gcs import GcsClient, GcsClientOptions, GlobalStateAccessor
from rabbitry.ray_alias.adapters.time_series import merge_instantaneous_total, time_weighted_average
from rabbitry.util.node_address import get_node_ip_address

__all__ = [
    "ActorClassID",
    "ActorID",
    "BaseID",
    "ClusterID",
    "Config",
    "DynamicObjectRefGenerator",
    "FunctionID",
    "GcsClient",
    "GcsClientOptions",
    "GlobalStateAccessor",
    "JobID",
    "Language",
    "MessagePackSerializer",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "PythonFunctionDescriptor",
    "StreamingGeneratorStats",
    "TaskID",
    "UniqueID",
    "WorkerID",
    "build_address",
    "get_all_interfaces_ip",
    "get_localhost_ip",
    "is_ipv6",
    "is_localhost",
    "parse_address",
]

ObjectID = ObjectRef
StreamingObjectRefGenerator = ObjectRefGenerator
merge_instantaneous_total_cython = merge_instantaneous_total
time_weighted_average_cython = time_weighted_average

IMPLICIT_RESOURCE_PREFIX: Final = "node:__internal_implicit_resource_"
RAY_INTERNAL_NAMESPACE_PREFIX: Final = "_ray_internal_"
RESOURCE_UNIT_SCALING: Final = 10_000
STREAMING_GENERATOR_RETURN: Final = -2
WORKER_PROCESS_SETUP_HOOK_KEY_NAME_GCS: Final = "FunctionsToRun"

RAY_NODE_ACCELERATOR_TYPE_KEY: Final = "ray.io/accelerator-type"
RAY_NODE_GROUP_KEY: Final = "ray.io/node-group"
RAY_NODE_ID_KEY: Final = "ray.io/node-id"
RAY_NODE_MARKET_TYPE_KEY: Final = "ray.io/market-type"
RAY_NODE_REGION_KEY: Final = "ray.io/availability-region"
RAY_NODE_TPU_POD_TYPE_KEY: Final = "ray.io/tpu-pod-type"
RAY_NODE_TPU_SLICE_NAME_KEY: Final = "ray.io/tpu-slice-name"
RAY_NODE_TPU_TOPOLOGY_KEY: Final = "ray.io/tpu-topology"
RAY_NODE_TPU_WORKER_ID_KEY: Final = "ray.io/tpu-worker-id"
RAY_NODE_ZONE_KEY: Final = "ray.io/availability-zone"

GRPC_STATUS_CODE_UNKNOWN: Final = 2
GRPC_STATUS_CODE_DEADLINE_EXCEEDED: Final = 4
GRPC_STATUS_CODE_RESOURCE_EXHAUSTED: Final = 8
GRPC_STATUS_CODE_UNIMPLEMENTED: Final = 12
GRPC_STATUS_CODE_UNAVAILABLE: Final = 14

GCS_AUTOSCALER_STATE_NAMESPACE: Final = "__autoscaler"
GCS_AUTOSCALER_V2_ENABLED_KEY: Final = "__autoscaler_v2_enabled"

async_task_id: contextvars.ContextVar[Any] = contextvars.ContextVar("async_task_id", default=None)
async_task_name: contextvars.ContextVar[Any] = contextvars.ContextVar("async_task_name", default=None)
async_task_function_name: contextvars.ContextVar[Any] = contextvars.ContextVar("async_task_function_name", default=None)


class Language(Enum):
    """The languages that a function may be written in; rabbitry runs Python."""

    PYTHON = 0
    CPP = 1
    JAVA = 2

    def __str__(self) -> str:
        return self.name


class AuthenticationMode(IntEnum):
    """How Ray's own servers authenticate; there are none here."""

    DISABLED = 0
    TOKEN = 1


def get_authentication_mode() -> AuthenticationMode:
    """Return DISABLED: messages are authenticated by the cluster's secret, not by Ray's token."""
    return AuthenticationMode.DISABLED


def validate_authentication_token(auth_header: str) -> bool:
    """Return False: there is no token of Ray's servers."""
    return False


class AuthenticationTokenLoader:
    """Finds the token of Ray's own servers: there is none."""

    @staticmethod
    def instance() -> AuthenticationTokenLoader:
        """Return a loader."""
        return AuthenticationTokenLoader()

    def has_token(self, ignore_auth_mode: bool = False) -> bool:
        """Return False."""
        return False

    def reset_cache(self) -> None:
        """Do nothing."""

    def get_token_for_http_header(self) -> dict[str, str]:
        """Return no header."""
        return {}


class Config:
    """Ray's settings that its libraries read, each a method, with the values that Ray has by default."""

    _VALUES: Final = {
        "enable_timeline": True,
        "grpc_client_keepalive_time_ms": 300_000,
        "grpc_client_keepalive_timeout_ms": 120_000,
        "health_check_failure_threshold": 5,
        "health_check_period_ms": 3_000,
        "health_check_timeout_ms": 10_000,
        "max_grpc_message_size": 512 * 1024 * 1024,
        "metrics_report_interval_ms": 10_000,
        "py_gcs_connect_timeout_s": 30,
        "record_ref_creation_sites": False,
    }

    def __getattr__(self, name: str) -> Any:
        if name in self._VALUES:
            return lambda: self._VALUES[name]
        raise AttributeError(f"rabbitry has no setting {name} of Ray's core", name=name)


_config = Config()


class SerializedObject:
    """A value as Ray's core sends it: a type for those who name it, of which there is never an instance."""


class MessagePackSerializer:
    """Plain values as MessagePack."""

    @staticmethod
    def dumps(o: Any, python_serializer: Any = None) -> bytes:
        """Return a value of plain types as bytes; `python_serializer` makes one of any other."""
        return msgspec.msgpack.encode(o, enc_hook=python_serializer)

    @staticmethod
    def loads(s: bytes, python_deserializer: Any = None) -> Any:
        """Return what `dumps` was given."""
        return msgspec.msgpack.decode(s)


def node_labels_match_selector(node_labels: dict[str, str], selector: dict[str, str]) -> bool:
    """Return True if labels fulfil a selector, such as `{"zone": "in(a,b)", "type": "!gpu"}`."""
    return matches(selector_text(selector), node_labels)


def node_ip_address_from_perspective(address: str | None = None) -> str:
    """Return the address by which others reach this host."""
    return get_node_ip_address()


def get_event_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop."""
    return asyncio.get_running_loop()


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(f"rabbitry has no counterpart of ray._raylet.{name}, a part of Ray's compiled core", name=name)
