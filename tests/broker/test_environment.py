"""Numbers in environment variables."""

from __future__ import annotations

import pytest

from rabbitry_broker.environment import number


@pytest.mark.parametrize("text", [None, ""])
def test_what_is_not_set_is_the_default(text: str | None) -> None:
    environment = {} if text is None else {"LIMIT": text}
    assert number("LIMIT", int, 7, unit="bytes", environment=environment) == 7


def test_a_number_is_read() -> None:
    assert number("LIMIT", float, 7.0, unit="seconds", environment={"LIMIT": "0.5"}) == 0.5
    assert number("LIMIT", int, 7, unit="bytes", least=10, environment={"LIMIT": "10"}) == 10


@pytest.mark.parametrize("text", ["many", "1.5", "-1", "9"])
def test_what_is_none_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(ValueError, match=f"LIMIT='{text}' must be a whole number of bytes, 10 or more"):
        number("LIMIT", int, 7, unit="bytes", least=10, environment={"LIMIT": text})


@pytest.mark.parametrize("text", ["inf", "nan", "-0.1"])
def test_what_is_not_finite_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a number of seconds, 0 or more"):
        number("LIMIT", float, 7.0, unit="seconds", environment={"LIMIT": text})
