"""`LoggingConfig`: what is refused, and what lines look like."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from rabbitry import init_checks
from rabbitry.logging_config import LoggingConfig, _Handler


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    before = [
        (each, each.handlers[:], each.level, each.propagate) for each in map(logging.getLogger, (None, "rabbitry"))
    ]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def logged(config: LoggingConfig) -> io.StringIO:
    config._apply()
    (handler,) = [each for each in logging.getLogger().handlers if isinstance(each, _Handler)]
    handler.setStream(text := io.StringIO())
    return text


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Invalid encoding type: 'XML'; it must be one of TEXT, JSON"):
        LoggingConfig(encoding="XML")
    with pytest.raises(ValueError, match="LOUD"):
        LoggingConfig(log_level="LOUD")
    with pytest.raises(ValueError, match=r"attribute: 'nmae'. Did you mean 'name'\?"):
        LoggingConfig(additional_log_standard_attrs=["nmae"])
    with pytest.raises(TypeError, match="LoggingConfig"):
        init_checks.logging_config({"encoding": "JSON"})


def test_it_travels_as_json() -> None:
    config = LoggingConfig("JSON", "DEBUG", ["name"])
    assert LoggingConfig.from_dict({**json.loads(json.dumps(config.to_dict())), "new": 1}) == config


def test_a_line_of_json_says_everything() -> None:
    text = logged(LoggingConfig("JSON", "INFO", ["name", "funcName"]))
    logging.getLogger("mine").debug("not shown")
    try:
        raise ValueError("x")
    except ValueError:
        logging.getLogger("mine").exception("it %s", "broke", extra={"user": {"id": 7}, "odd": object})
    (line,) = text.getvalue().splitlines()
    facts = json.loads(line)
    assert facts["message"] == "it broke"
    assert facts["levelname"] == "ERROR"
    assert facts["filename"] == "test_logging_config.py"
    assert facts["exc_text"].endswith("ValueError: x")
    assert (facts["name"], facts["funcName"]) == ("mine", "test_a_line_of_json_says_everything")
    assert facts["user"] == {"id": 7}
    assert isinstance(facts["timestamp_ns"], int)
    assert list(facts)[:6] == ["asctime", "levelname", "message", "filename", "lineno", "process"]


def test_a_line_of_text_has_the_facts_behind_it() -> None:
    text = logged(LoggingConfig("TEXT", "WARNING"))
    LoggingConfig("TEXT", "INFO")._apply()  # again: not twice
    text = logged(LoggingConfig())
    logging.getLogger("rabbitry").info("hello", extra={"user": 7})
    (line,) = text.getvalue().splitlines()
    assert "\tINFO test_logging_config.py:" in line
    assert " -- hello user=7 timestamp_ns=" in line
