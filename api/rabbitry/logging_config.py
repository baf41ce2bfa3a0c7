"""How a job logs: `init(logging_config=LoggingConfig(...))` sets up the root logger of its driver, tasks and actors."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from rabbitry import loggers

ENCODINGS: Final = ("TEXT", "JSON")
STANDARD_ATTRIBUTES: Final = frozenset((*vars(logging.makeLogRecord({})), "asctime", "message", "taskName"))
"""Attributes that every record has; what else it has, somebody has added."""

home_node: Final[list[str]] = []
"""Of a driver: id of a node of its host. The session puts it here: to look for it while logging could block."""

_TEXT: Final = "%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s"
_JSON: Final = ("asctime", "levelname", "message", "filename", "lineno", "process")


@dataclass
class LoggingConfig:
    """How the driver, the tasks and the actors of a job log.

    Their root logger gets a handler on standard error. Each record says where it was made: `job_id`, `worker_id`,
    `node_id`, and in tasks and actors `task_id`, `task_name`, `task_func_name`, `actor_id`, `actor_name`; and
    `timestamp_ns`. What `extra=` adds to a record is shown as well.

    Args:
        encoding: "TEXT" for lines for people, with those facts as `key=value` behind; "JSON" for an object a line.
        log_level: of the root logger.
        additional_log_standard_attrs: names of attributes of `logging.LogRecord` to be shown too.

    Raises:
        ValueError: there is no such encoding, level or attribute.
        TypeError: `log_level` is neither a name nor a number.

    Example:
        >>> LoggingConfig(encoding="JSON").log_level
        'INFO'
    """

    encoding: str = "TEXT"
    log_level: str = "INFO"
    additional_log_standard_attrs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check the values."""
        if self.encoding not in ENCODINGS:
            raise ValueError(f"Invalid encoding type: {self.encoding!r}; it must be one of {', '.join(ENCODINGS)}.")
        logging.Handler(self.log_level)  # raises
        for name in self.additional_log_standard_attrs:
            if name not in STANDARD_ATTRIBUTES:
                from rabbitry.suggestions import closest

                raise ValueError(
                    f"Unknown python logging standard attribute: {name!r}.{closest(name, STANDARD_ATTRIBUTES)}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> LoggingConfig:
        """Return what `to_dict` returned; keys that are not known are left out."""
        known = {each.name for each in fields(cls)}
        return cls(**{key: value for key, value in given.items() if key in known})

    def _apply(self) -> None:
        """Set up the loggers of this process; again: in the place of what was set up so before."""
        handler = _Handler()
        handler.setLevel(self.log_level)
        handler.addFilter(_add_context)
        handler.setFormatter((_JsonFormatter if self.encoding == "JSON" else _TextFormatter)(self))
        for name in ("", *loggers.configured):
            logger = logging.getLogger(name)
            logger.setLevel(self.log_level)
            for old in logger.handlers[:]:
                if name or isinstance(old, _Handler):
                    logger.removeHandler(old)
            logger.addHandler(handler)
        logging.getLogger("rabbitry").propagate = False


if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[Any]
else:
    _StreamHandler = logging.StreamHandler  # takes no type before Python 3.11


class _Handler(_StreamHandler):
    """Ours: told from what a program has set up by itself."""


def _add_context(record: logging.LogRecord) -> bool:
    """Add to a record where it was made."""
    facts: dict[str, Any] = {"timestamp_ns": time.time_ns()}
    vars(record).update(facts)
    from rabbitry import current
    from rabbitry.runtime_context import RuntimeContext, task_context

    client = current.peek()
    if client is None:
        return True
    context = RuntimeContext(client)
    facts = {"job_id": context.get_job_id(), "worker_id": context.get_worker_id()}
    task = task_context()
    if task is not None:
        facts["node_id"] = task.node_id.hex()
        facts["task_id"] = context.get_task_id()
        facts["task_name"] = context.get_task_name()
        facts["task_func_name"] = context.get_task_function_name()
        facts["actor_id"] = context.get_actor_id()
        facts["actor_name"] = context.get_actor_name()
    elif home_node:
        facts["node_id"] = home_node[0]
    vars(record).update((name, value) for name, value in facts.items() if value)
    return True


class _Formatter(logging.Formatter):
    def __init__(self, config: LoggingConfig) -> None:
        super().__init__(_TEXT)
        self._more = config.additional_log_standard_attrs

    def added(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return what is shown of a record beyond what every line has."""
        facts = {name: getattr(record, name, None) for name in self._more}
        facts.update((name, value) for name, value in vars(record).items() if name not in STANDARD_ATTRIBUTES)
        facts["timestamp_ns"] = facts.pop("timestamp_ns", None)  # at the end
        return facts


class _TextFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return a line with the facts behind it."""
        facts = " ".join(f"{name}={value}" for name, value in self.added(record).items())
        return f"{super().format(record)} {facts}"


class _JsonFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return an object of JSON, in one line."""
        vars(record).update(message=record.getMessage(), asctime=self.formatTime(record))
        facts = {name: getattr(record, name, None) for name in _JSON}
        if record.exc_info:
            facts["exc_text"] = record.exc_text or self.formatException(record.exc_info)
        return json.dumps({**facts, **self.added(record)}, default=str)
