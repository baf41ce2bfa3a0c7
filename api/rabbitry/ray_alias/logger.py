"""The logger `ray`, below which Ray's libraries log. As in Ray, INFO and more of it goes to stderr by default."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from rabbitry import loggers
from rabbitry.runtime_context import task_context

NAME: Final = "ray"
QUIET: Final = "ray.rllib"  # warnings and more
FORMAT: Final = "%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s"

if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[Any]
else:
    _StreamHandler = logging.StreamHandler  # takes no type before Python 3.11


class Console(_StreamHandler):
    """Writes to what `sys.stderr` is at the moment. In a worker the message alone: whose it is, the driver adds."""

    _bare = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, if there is a stderr."""
        if sys.stderr is not None:
            self.stream = sys.stderr
            super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as text."""
        return super().format(record) if task_context() is None else self._bare.format(record)


def set_up() -> None:
    """Set the logger up in this process. May be called again."""
    if NAME in loggers.configured:
        return
    loggers.configured.append(NAME)
    handler = Console()
    handler.setFormatter(logging.Formatter(FORMAT))
    logger = logging.getLogger(NAME)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False
    logging.getLogger(QUIET).setLevel(logging.WARNING)
