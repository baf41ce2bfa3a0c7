"""What the runtime context says where there is no task."""

from __future__ import annotations

import logging
from types import SimpleNamespace

from rabbitry.runtime_context import RuntimeContext


def test_a_logging_filter_may_ask_for_the_task(caplog):
    context = RuntimeContext(SimpleNamespace(current_task=lambda: None))
    logger = logging.getLogger("rabbitry")

    def add_task(record):
        record.task = context.get_task_id()
        return True

    logger.addFilter(add_task)
    try:
        with caplog.at_level(logging.WARNING, logger="rabbitry"):
            assert context.get_task_id() is None
    finally:
        logger.removeFilter(add_task)
    assert [record.getMessage() for record in caplog.records if record.name == "rabbitry"] == [
        "the task id is known inside a task only; this is a driver"
    ]
