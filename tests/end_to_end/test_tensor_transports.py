"""Programs that say how Ray shall move their tensors run; here all travel by the object store."""

from __future__ import annotations

import numpy
import pytest

import rabbitry
from rabbitry.experimental import wait_tensor_freed

pytestmark = pytest.mark.usefixtures("session")


@rabbitry.remote(num_cpus=0)
class Trainer:
    @rabbitry.method(tensor_transport="gloo")
    def make(self) -> numpy.ndarray:
        self.made = numpy.arange(100_000)
        return self.made

    def overwrite(self) -> None:
        wait_tensor_freed(self.made, timeout=0)
        self.made[:] = 0

    def total(self, tensor: numpy.ndarray) -> int:
        return int(tensor.sum())


def test_a_result_with_a_transport_is_a_result_like_others() -> None:
    first, second = Trainer.remote(), Trainer.remote()
    ref = first.make.remote()
    total = sum(range(100_000))
    assert rabbitry.get([each.total.remote(ref) for each in (first, second)]) == [total, total]
    rabbitry.get(first.overwrite.remote())
    assert rabbitry.get(ref, _use_object_store=True).sum() == total, "a copy, which nobody overwrites"
    assert rabbitry.get(second.total.options(tensor_transport="NIXL").remote(ref)) == total


def test_put_takes_the_transports_whose_readers_fetch_and_refuses_others() -> None:
    assert rabbitry.get(rabbitry.put("value", _tensor_transport="nixl")) == "value"
    with pytest.raises(ValueError, match=r"put\(\) is not for the tensor transport GLOO"):
        rabbitry.put("value", _tensor_transport="gloo")
    with pytest.raises(ValueError, match="Invalid tensor transport: 'pigeon'"):
        rabbitry.put("value", _tensor_transport="pigeon")


def test_a_class_without_transports_has_no_method_with_one() -> None:
    with pytest.raises(ValueError, match=r"Sender.send has @method\(tensor_transport=...\)"):

        @rabbitry.remote(enable_tensor_transport=False)
        class Sender:
            @rabbitry.method(tensor_transport="gloo")
            def send(self) -> None: ...
