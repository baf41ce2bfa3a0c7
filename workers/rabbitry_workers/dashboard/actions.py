"""What changes a cluster. Nothing is done before the reader has said yes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nicegui import html, ui

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_workers.dashboard.elements import Text, notice
from rabbitry_workers.dashboard.live import Live
from rabbitry_workers.dashboard.source import ActorRow, JobRow, Missing, NodeRow, Refused, TaskRow


def cancel_button(live: Live, task: TaskRow) -> None:
    """Add a button that cancels a task."""

    async def press() -> None:
        await _ask(
            live,
            f"Cancel {task.name}?",
            f"Task {task.id}. If it runs, KeyboardInterrupt is raised in it; `get` of its result fails then.",
            "Cancel the task",
            "Keep it",
            option="End its process if it runs (force)",
            act=lambda force: live.source.cancel(task.id, force=force),
        )

    _danger("Cancel…", press)


def kill_button(live: Live, actor: ActorRow) -> None:
    """Add a button that kills an actor."""

    async def press() -> None:
        await _ask(
            live,
            f"Kill {actor.name or actor.class_name}?",
            f"Actor {actor.id}. Its process is ended at once, and calls that run fail.",
            "Kill the actor",
            "Keep it",
            option="Let it be restarted, if it may be",
            act=lambda restart: live.source.kill(actor.id, restart=restart),
        )

    _danger("Kill…", press)


def stop_button(live: Live, job: JobRow) -> None:
    """Add a button that stops a submitted job."""

    async def press() -> None:
        await _ask(
            live,
            f"Stop {job.submission}?",
            f"Its entrypoint is ended: {job.entrypoint}",
            "Stop the job",
            "Let it run",
            act=lambda _: live.source.stop_job(job.submission),
        )

    _danger("Stop…", press)


def drain_button(live: Live, node: NodeRow) -> None:
    """Add a button that has a node leave."""

    async def press() -> None:
        await _ask(
            live,
            f"Drain {node.name}?",
            f"Node {node.id} finishes what it runs, hands back what waits on it, and leaves.",
            "Drain the node",
            "Keep it",
            act=lambda _: live.source.drain(node.id),
        )

    _danger("Drain…", press)


async def show_stack(live: Live, node: str, pid: int, what: str) -> None:
    """Show what a process does just now."""
    with ui.dialog() as dialog, html.div().classes("question wide"):
        Text("h2", f"Stack of process {pid}" + (f", which runs {what}" if what else ""))
        shown = Text("pre", "Asking its node…")
        shown.classes("box")
        with html.div().classes("answers"):
            again = html.button("Look again", type="button").classes("small")
            html.button("Close", type="button").classes("small").on("click", dialog.close)

    async def look() -> None:
        try:
            shown.show(await asyncio.to_thread(live.source.stack, node, pid))
        except (Missing, Refused, RabbitryBrokerError) as error:
            shown.show(str(error))

    again.on("click", look)
    dialog.on("hide", dialog.delete)
    dialog.open()
    await look()


def _danger(label: str, press: Callable[[], object]) -> None:
    html.button(label, type="button").classes("small danger").on("click", press)


async def _ask(
    live: Live, title: str, text: str, yes: str, no: str, *, act: Callable[[bool], str], option: str = ""
) -> None:
    chosen = False

    def choose(value: object) -> None:
        nonlocal chosen
        chosen = bool(value)

    with ui.dialog() as dialog, html.div().classes("question").props('role="alertdialog"'):
        Text("h2", title)
        Text("p", text)
        if option:
            with html.label():
                box = ui.element("input").props("type=checkbox")
                box.on("change", lambda event: choose(event.args), js_handler="(event) => emit(event.target.checked)")
                Text("span", option)
        with html.div().classes("answers"):
            keep = html.button(no, type="button").classes("small").props("autofocus")
            keep.on("click", lambda: dialog.submit(False))
            html.button(yes, type="button").classes("small danger").on("click", lambda: dialog.submit(True))
    said_yes = await dialog
    dialog.delete()
    if not said_yes:
        return
    try:
        notice(await asyncio.to_thread(act, chosen))
    except (Missing, Refused, RabbitryBrokerError) as error:
        notice(str(error), "negative")
    live.readings.forget()
    await live.refresh(forced=True)
