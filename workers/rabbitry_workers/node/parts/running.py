"""The wiring of what runs: from a lane to an executor, what executors say, and how they end."""

from __future__ import annotations

import os
import socket
from typing import Any
from urllib.parse import urlsplit

from rabbitry_workers import channel
from rabbitry_workers.environments.making import Setup
from rabbitry_workers.node.dispatch.blocking import Blocking
from rabbitry_workers.node.dispatch.completions import Completions
from rabbitry_workers.node.dispatch.crashes import Crashes
from rabbitry_workers.node.dispatch.dispatcher import Dispatcher
from rabbitry_workers.node.dispatch.ending import Ending
from rabbitry_workers.node.dispatch.forker import Forker
from rabbitry_workers.node.dispatch.messages import ExecutorMessages
from rabbitry_workers.node.dispatch.retries import Retries
from rabbitry_workers.node.dispatch.start_marks import StartMarks
from rabbitry_workers.node.dispatch.templates import Templates
from rabbitry_workers.node.intake.handback import HandBack
from rabbitry_workers.node.intake.local_calls import LocalCalls
from rabbitry_workers.node.model.config import NodeConfig
from rabbitry_workers.node.model.lanes import Executor
from rabbitry_workers.node.parts.actors import ActorParts
from rabbitry_workers.node.services.clients import ExecutorClients


class RunningParts(ActorParts):
    """The parts that hand work to executors and hear of it."""

    # Of parts above, looked up when they are called.
    handback: HandBack
    local_calls: LocalCalls

    def __init__(self, config: NodeConfig, template: tuple[int, socket.socket]) -> None:
        super().__init__(config)
        node, settle = self.node, self.settling.settle
        marks = StartMarks(node, settle, self.commits, self.others.is_alive, self.doubts.add)
        self.dispatcher = Dispatcher(
            node,
            self.lanes,
            self.pool,
            self.nesting,
            self.turns,
            self.run_times,
            marks,
            self.hosting,
            self.failing,
            self._on_room,
            self.holding.keep,
        )
        self.retries = Retries(
            node,
            self.lanes,
            self.commits,
            self.cancelling,
            self.dispatcher.serve,
            lambda: self.handback.give_back_all(),
            self.life,
        )
        self.completions = Completions(
            settle,
            self.publishing,
            self.run_times,
            self.turns,
            self.pool,
            self.dispatcher.serve,
            self.continuations.adopt,
            self.retries.retry_later,
            self.life,
            self.events if self.events.recorder.on else None,
        )
        self.clients = ExecutorClients(node, self.commits.orphan)
        self.crashes = Crashes(
            node,
            self.lanes,
            self.executors,
            self.pool,
            self.nesting,
            self.recall,
            self.commits,
            self.dispatcher,
            self.life,
            self.ends.gone,
            self.clients.gone,
            self.output,
        )
        self.forker = Forker(self.loop, template, self.pool.on_forked, self.crashes.on_exited)
        self.templates = Templates(
            self.loop,
            self.forker,
            self.pool.on_forked,
            self.crashes.on_exited,
            self.pool.not_forked,
            self.environments.broken,
            self.environments.log_of,
            self._config_of,
            self.environments.is_up,
            [os.path.dirname(urlsplit(each).path) for each in (node.endpoint.store_url,) if each.startswith("unix:")],
        )
        blocking = Blocking(self.nesting, self.recall, self.dispatcher, self.sources.allow_for_blocked)
        ending = self.ending = Ending(
            self.lanes, self.pool, self.recall, self.dispatcher, self.failing, self.hosting.created, self.life
        )
        self.messages = ExecutorMessages(
            {
                channel.DONE: self.completions.on_done,
                channel.DONE_SET: self.calls.on_done,
                channel.BLOCKED: blocking.on_blocked,
                channel.UNBLOCKED: blocking.on_unblocked,
                channel.CREATED: self.hosting.on_created,
                channel.PUBLISH: self._publish_for,
                channel.BROKEN: ending.on_broken,
                channel.BYE: ending.on_bye,
                channel.LEAVING: ending.on_leaving,
            },
            self.crashes.on_gone,
        )

    def _on_room(self) -> None:
        self.sources.on_room()
        self.planner.on_room()

    def _config_of(self, key: tuple[bytes, bytes], setup: Setup) -> dict[str, Any]:
        job, code = key
        return self.node.config.executor_config(self.jobs.facts(job), job, code, b"", setup.pack())

    def _publish_for(self, executor: Executor, queue: str, priority: int, frame: bytes) -> None:
        if not self.local_calls.take(queue, frame):
            self.publishing.publish(queue, frame, priority)
