"""A notebook, run by a real kernel."""

from __future__ import annotations

import textwrap
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

CELLS = (
    """
    import time
    import rabbitry.as_ray
    rabbitry.as_ray.install()
    import ray

    from rabbitry.logs import LogPrinter
    run_once, rounds = LogPrinter.run_once, []
    LogPrinter.run_once = lambda self, timeout: (rounds.append(run_once(self, timeout)), rounds[-1])[1]

    def wait_for_output(count):
        deadline = time.monotonic() + 30
        while rounds.count(b"") < count:
            assert time.monotonic() < deadline, rounds
            time.sleep(0.02)

    context = ray.init(num_cpus=1)
    context
    """,
    """
    @ray.remote
    def speak(text):
        print("said", text)
        return text

    @ray.remote
    class Tag:
        def name(self): return "<b>"

    ref = speak.remote("<once>")
    print(ray.get(ref))
    wait_for_output(1)
    ref
    """,
    "ray.get(speak.remote('again')); wait_for_output(2)",
    """
    from ray.util import progress
    print([ray.get(each) for each in progress([ref], desc="bar")], ray.get([ref], progress=True))
    """,
    "Tag.remote()",
    "ray.shutdown(); ref",
)


@pytest.mark.timeout(120)
def test_a_notebook() -> None:
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(cell).strip()) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    context, first, again, bar, actor, after = (cell.outputs for cell in notebook.cells)

    assert '<b>CPU</b></td><td style="text-align:left">1</td>' in shown(context)
    assert "<once>" in text(first, "stdout")
    assert "not known" in shown(first) or '<b>state</b></td><td style="text-align:left">ready' in shown(first)
    # What a task prints appears under the cell that ran, not under that of init().
    assert "said <once>" in text(first, "stdout")
    assert "said again" in text(again, "stdout")
    assert "said" not in text(context, "stdout")
    assert "['<once>'] ['<once>']" in text(bar, "stdout")
    assert "bar: 100%" in text(bar, "stderr") or any("widget" in str(each) for each in bar)
    assert "Actor Tag" in shown(actor) and "name" in shown(actor)
    assert "of no session that runs" in shown(after)


def text(outputs: list[Any], stream: str) -> str:
    return "".join(each.text for each in outputs if each.output_type == "stream" and each.name == stream)


def shown(outputs: list[Any]) -> str:
    return "".join(each.data.get("text/html", "") for each in outputs if "data" in each)
