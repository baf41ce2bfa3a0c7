"""Progress bars of tasks: what is drawn, what is printed, what is no bar."""

from __future__ import annotations

import builtins
import io
import json
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

pytest.importorskip("tqdm")

from rabbitry.experimental import tqdm_ray


class _Bar:
    """What stands for tqdm's bars."""

    made: ClassVar[list[_Bar]] = []

    def __init__(self, **options: Any) -> None:
        self.options, self.n, self.total, self.pos, self.closed = options, 0, options["total"], 0, False
        self.desc = options["desc"]
        self.drawn: list[str] = []
        _Bar.made.append(self)

    def set_description(self, desc: str, refresh: bool = True) -> None:
        self.desc = desc

    def refresh(self) -> None:
        self.drawn.append("draw")

    def clear(self) -> None:
        self.drawn.append("clear")

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def bars(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[_Bar]]:
    monkeypatch.setattr(_Bar, "made", [])
    monkeypatch.setattr(tqdm_ray, "_real_tqdm", lambda: _Bar)
    yield _Bar.made
    tqdm_ray.instance().end()


def state(**changes: Any) -> dict[str, Any]:
    bar = tqdm_ray.tqdm(desc="work", total=10)
    return {**bar._get_state(), "uuid": "1", "pid": 7, **changes}


def line(**changes: Any) -> bytes:
    return json.dumps(state(**changes)).encode()


def test_lines_of_bars_are_drawn_and_others_are_left(bars: list[_Bar]) -> None:
    assert tqdm_ray.take_out([b"before", line(x=3), b"after", line(x=5)]) == [b"before", b"after"]
    assert [(bar.desc, bar.total, bar.n) for bar in bars] == [("(pid=7) work", 10, 5)]
    tqdm_ray.take_out([line(x=10, closed=True)])
    assert bars[0].closed and bars[0].n == 10
    assert tqdm_ray.instance()._bars == {}


@pytest.mark.parametrize(
    "wrong",
    [
        tqdm_ray.RAY_TQDM_MAGIC.encode(),
        b"{%s" % tqdm_ray.RAY_TQDM_MAGIC.encode(),
        json.dumps([tqdm_ray.RAY_TQDM_MAGIC]).encode(),
        json.dumps({"__magic_token__": tqdm_ray.RAY_TQDM_MAGIC}).encode(),
    ],
)
def test_what_only_looks_like_a_bar_is_printed(wrong: bytes, bars: list[_Bar]) -> None:
    assert tqdm_ray.take_out([wrong]) == [wrong]
    assert tqdm_ray.take_out([odd := line(x="many")]) == [odd]
    assert bars == []


def test_bars_of_one_process_are_below_each_other(bars: list[_Bar]) -> None:
    tqdm_ray.take_out([line(uuid="a", pid=1), line(uuid="b", pid=2), line(uuid="c", pid=1, pos=1)])
    assert [bar.pos for bar in bars] == [0, -2, -1]
    tqdm_ray.take_out([line(uuid="a", pid=1, closed=True), line(uuid="c", pid=1, pos=1, closed=True)])
    assert bars[1].pos == 0


def test_print_hides_bars_while_there_are_some(bars: list[_Bar], capsys: pytest.CaptureFixture[str]) -> None:
    before = builtins.print
    bar = tqdm_ray.tqdm([1, 2], desc="here", flush_interval_s=0)
    for _ in bar:
        print("in between")
    print("to a file", file=io.StringIO())
    assert bars[0].desc == "here"
    assert bars[0].drawn == ["draw", "clear", "draw", "draw", "clear", "draw"]
    bar.close()
    assert builtins.print is before
    assert capsys.readouterr().out == "in between\n" * 2


def test_a_bar_says_as_much_as_its_interval_allows(bars: list[_Bar]) -> None:
    bar = tqdm_ray.tqdm(total=5, flush_interval_s=100)
    for _ in range(5):
        bar.update()
    assert bars[0].n == 1
    bar.close()
    assert bars[0].n == bar.n == 5
    with pytest.raises(ValueError, match="No iterable"):
        list(tqdm_ray.tqdm())
