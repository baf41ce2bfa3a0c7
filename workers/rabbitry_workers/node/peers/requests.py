"""Questions that any client may ask this node (`rabbitry.node_requests`), answered on a thread beside the loop.

A word has a function that is called with the arguments on the loop's thread, where it may look at the node, and returns
what is left to be done: that runs on the thread, and must touch nothing but files and processes. What it returns is the
answer. Nothing is kept: an answer that got lost is asked for again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.messages import MalformedMessage, decode, encode
from rabbitry_workers.node.model.node import Node

WAITING_MAX: Final = 64  # questions; beyond, they are refused

Answers = Mapping[str, Callable[[dict[str, Any]], Callable[[], Any]]]

log = logging.getLogger("rabbitry.node")


class Refusal(Exception):
    """The question cannot be answered; the text says why."""


class Requests:
    """Answers questions. Loop thread only, but for what the answers' second step does.

    Args:
        node: which is asked.
        answers: by word.
    """

    def __init__(self, node: Node, answers: Answers) -> None:
        self._node = node
        self._answers = answers
        self._waiting: set[tuple[bytes, int]] = set()  # questions that are to be answered
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="rabbitry-answers")  # starts with the first question

    def on_ask(self, node_id: bytes, question: bytes) -> None:
        """Somebody asks a node: this one, or another."""
        if node_id != self._node.id:
            return
        try:
            token, number, word, arguments = msgspec.convert(decode(question), tuple[bytes, int, str, dict[str, Any]])
        except (ValueError, msgspec.MsgspecError) as error:
            raise MalformedMessage(f"question: {error!r}") from error
        if (token, number) in self._waiting:
            return  # asked again, since the answer takes long: it comes
        if len(self._waiting) >= WAITING_MAX:
            self._say(token, number, "it has too many questions to answer now", None)
            return
        try:
            if word not in self._answers:
                raise Refusal(f"it knows no answer to {word!r}: it may run another version of rabbitry")
            rest = self._answers[word](arguments)
        except (Refusal, KeyError, TypeError, ValueError) as error:
            self._say(token, number, _reason(error), None)
            return
        self._waiting.add((token, number))
        self._threads.submit(self._run, rest, token, number)

    def _run(self, rest: Callable[[], Any], token: bytes, number: int) -> None:
        """Body of the thread's work."""
        refusal, answer = "", None
        try:
            answer = rest()
        except Exception as error:
            refusal = _reason(error)
            if not isinstance(error, (Refusal, OSError, ValueError, TypeError, KeyError)):
                log.exception("a question could not be answered")

        def say() -> None:
            self._waiting.discard((token, number))
            self._say(token, number, refusal, answer)

        self._node.loop.add_callback(say)

    def _say(self, token: bytes, number: int, refusal: str, answer: Any) -> None:
        message = encode([self._node.id, number, refusal, answer])
        sealed = self._node.signer.seal(b"answer" + token, message)
        try:
            self._node.store.call(b"PUBLISH", self._node.keys.answers_channel(token), sealed)
        except RabbitryBrokerError as error:
            log.debug("an answer is lost: %s", error)

    def close(self) -> None:
        """The node ends: who asks now hears nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, Refusal) else f"{type(error).__name__}: {error}"
