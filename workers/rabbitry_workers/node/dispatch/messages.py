"""What executors say: one table of words (`rabbitry_workers.channel`) and who acts on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rabbitry_workers.node.model.lanes import Executor

Handler = Callable[..., object]
"""Called with the executor and what follows the word."""


class ExecutorMessages:
    """What all executor processes of a node report to. Loop thread only. HOT PATH: once for each message.

    Args:
        handlers: by word; a word that has none is ignored, as it says nothing that this node knows.
        on_gone: a channel has ended.
    """

    def __init__(self, handlers: Mapping[Any, Handler], on_gone: Callable[[Executor], None]) -> None:
        self._handlers = handlers
        self.on_executor_gone = on_gone

    def on_executor_message(self, executor: Executor, message: list[Any]) -> None:
        """Act on one message of an executor."""
        handler = self._handlers.get(message[0])
        if handler is not None:
            handler(executor, *message[1:])
