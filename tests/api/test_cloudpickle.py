"""`rabbitry.cloudpickle`: cloudpickle, with the serializers that were registered."""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rabbitry import cloudpickle, program
from rabbitry.util import deregister_serializer, register_serializer

Lock = type(threading.Lock())


@pytest.fixture
def registered() -> Iterator[None]:
    register_serializer(Lock, serializer=lambda lock: None, deserializer=lambda nothing: threading.Lock())
    yield
    deregister_serializer(Lock)


def dumped(value: Any) -> bytes:
    file = io.BytesIO()
    cloudpickle.dump(value, file)
    return file.getvalue()


def pickled(value: Any) -> bytes:
    file = io.BytesIO()
    cloudpickle.CloudPickler(file).dump(value)
    return file.getvalue()


@pytest.mark.parametrize("way", [cloudpickle.dumps, cloudpickle.dumps_debug, dumped, pickled])
def test_registered_serializers_count(registered: None, way: Any) -> None:
    lock = threading.Lock()
    found = cloudpickle.loads(way({"lock": lock, "f": lambda: lock}))
    assert isinstance(found["lock"], Lock)
    assert found["f"]() is found["lock"]


@pytest.mark.parametrize("way", [cloudpickle.dumps, cloudpickle.dumps_debug, dumped, pickled])
def test_functions_and_classes_keep_the_file_that_tracebacks_show(way: Any) -> None:
    class Local:
        def method(self) -> None: ...

    function, cls = cloudpickle.loads(way((lambda: 7, Local)))
    assert function.__code__.co_filename == __file__
    assert cls.method.__code__.co_filename == __file__


def test_what_was_not_registered_is_as_with_cloudpickle() -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        cloudpickle.dumps(threading.Lock())
    assert pickle.loads(cloudpickle.dumps(lambda x: x + 1))(1) == 2
    code = cloudpickle.loads(cloudpickle.dumps((lambda: 7).__code__))
    assert eval(code) == 7


def test_an_error_says_how_to_look_for_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.Lock()
    monkeypatch.setattr(program, "name", lambda: "rabbitry")
    with pytest.raises(TypeError, match=r"rabbitry\.util\.inspect.* RABBITRY_PICKLE_VERBOSE_DEBUG=1"):
        cloudpickle.dumps_debug(lambda: lock)
    monkeypatch.setattr(program, "name", lambda: "ray")
    with pytest.raises(TypeError, match=r"\nray\.util\.inspect.* RAY_PICKLE_VERBOSE_DEBUG=1"):
        cloudpickle.dump_debug(lambda: lock, io.BytesIO())


@pytest.mark.parametrize("variable", ["RABBITRY_PICKLE_VERBOSE_DEBUG", "RAY_PICKLE_VERBOSE_DEBUG"])
def test_its_cause_is_looked_for_at_once_if_the_environment_says_so(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    culprit = threading.Lock()
    monkeypatch.setenv(variable, "1")
    with pytest.raises(TypeError) as caught:
        cloudpickle.dumps_debug(lambda: culprit)
    assert "VERBOSE_DEBUG" not in str(caught.value)
    assert "culprit" in capsys.readouterr().out


def test_buffers_leave_the_stream() -> None:
    buffers: list[pickle.PickleBuffer] = []
    stream = cloudpickle.dumps(np.arange(1000), protocol=5, buffer_callback=buffers.append)
    assert len(stream) < 1000
    assert cloudpickle.loads(stream, buffers=buffers)[-1] == 999
