"""Node labels and the selectors that ask for them.

A selector maps label keys to conditions, all of which must hold:

| condition | holds if the label |
|---|---|
| `"v"` | is `v` |
| `"!v"` | is not `v`, or is not there |
| `"in(a,b)"` | is one of them |
| `"!in(a,b)"` | is none of them, or is not there |

Keys and values have the syntax of Kubernetes labels. The canonical text of a selector names a queue, so that equal
selectors share one; in it stand also `*` (the label is there, whatever its value) and `!*` (it is not there), which
only `NodeLabelSchedulingStrategy` can ask for.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

RESERVED_PREFIX: Final = "ray.io/"
"""Keys that nodes set themselves begin so."""

ANY: Final = "*"
NONE: Final = "!*"

_MAX_NAME_CHARACTERS: Final = 63
_MAX_PREFIX_CHARACTERS: Final = 253
_WORD: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
_LIST: Final = re.compile(r"(?:in)?\((.*)\)")
_SYNTAX: Final = f"1 to {_MAX_NAME_CHARACTERS} of A-Z a-z 0-9 - _ . with a letter or digit at both ends"


@dataclass(frozen=True)
class Condition:
    """What a selector asks of one label.

    Attributes:
        key: the label.
        values: what it may be; empty for any value at all.
        negated: True if it must not be so.
    """

    key: str
    values: tuple[str, ...]
    negated: bool

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Return True if a node with `labels` satisfies it."""
        value = labels.get(self.key)
        found = value is not None and (not self.values or value in self.values)
        return found != self.negated

    def __str__(self) -> str:
        text = f"in({','.join(self.values)})" if len(self.values) > 1 else "".join(self.values or ANY)
        return f"{self.key}={'!' if self.negated else ''}{text}"


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of a node, checked.

    Raises:
        TypeError: a key or value is no text.
        ValueError: a key or value is not of the syntax of Kubernetes labels.
    """
    for key, value in labels.items():
        check_label_key(key)
        if not isinstance(value, str):
            raise TypeError(f"label {key!r} is {value!r}, a {type(value).__name__}; labels are text")
        if value:
            _check_word(value, f"value of label {key!r}")
    return dict(labels)


def selector_text(selector: Mapping[str, str] | None) -> str:
    """Return the canonical text of a label selector, "" for none.

    Raises:
        TypeError: a key or condition is no text.
        ValueError: a key is no label key, or a condition is none of `v`, `!v`, `in(a,b)`, `!in(a,b)`.

    >>> selector_text({"zone": "in(b, a)", "disk": "!hdd"})
    'disk=!hdd;zone=in(a,b)'
    """
    if not selector:
        return ""
    return text_of([_condition(key, text) for key, text in selector.items()])


def text_of(conditions: list[Condition]) -> str:
    """Return the canonical text of several conditions."""
    return ";".join(sorted(map(str, conditions)))


@functools.lru_cache(maxsize=1024)
def parse_selector(text: str) -> tuple[Condition, ...]:
    """Return the conditions of a canonical text; remembered, as a cluster has few.

    Raises:
        ValueError: `text` is not one that `selector_text` made.
    """
    conditions = []
    for part in filter(None, text.split(";")):
        key, separator, condition = part.partition("=")
        if not separator:
            raise ValueError(f"{text!r} is no label selector such as 'disk=!hdd;zone=in(a,b)' (at {part!r})")
        if condition in (ANY, NONE):
            conditions.append(Condition(key, (), condition == NONE))
        else:
            conditions.append(_condition(key, condition))
    return tuple(conditions)


def matches(text: str, labels: Mapping[str, str]) -> bool:
    """Return True if a node with `labels` satisfies the selector of this canonical text; "" fits every node.

    >>> matches("disk=!hdd;zone=in(a,b)", {"zone": "a"})
    True
    """
    return all(condition.holds(labels) for condition in parse_selector(text))


def _condition(key: str, text: str) -> Condition:
    check_label_key(key)
    if not isinstance(text, str):
        raise TypeError(
            f"label selector: the condition of {key!r} is {text!r}, a {type(text).__name__}; it must be text"
        )
    negated = text.startswith("!")
    rest = text[1:] if negated else text
    listed = _LIST.fullmatch(rest)
    values = re.split(", ?", listed[1]) if listed else [rest]
    # An empty condition asks for an empty label, but a list has no empty member.
    if text:
        for value in values:
            if len(value) > _MAX_NAME_CHARACTERS or not _WORD.fullmatch(value):
                raise ValueError(
                    f"label selector: {text!r} is no condition for {key!r}. Write a value, '!value', 'in(a,b)' or "
                    f"'!in(a,b)', where a value is {_SYNTAX}."
                )
    return Condition(key, tuple(sorted(set(values))), negated)


def check_label_key(key: str) -> None:
    """Check that `key` is a label key.

    Raises:
        TypeError: it is no text.
        ValueError: it has not the syntax of a Kubernetes label key.
    """
    if not isinstance(key, str):
        raise TypeError(f"label key {key!r} is a {type(key).__name__}; label keys are text")
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > _MAX_PREFIX_CHARACTERS or not all(_WORD.fullmatch(part) for part in prefix.split("."))):
        raise ValueError(
            f"label key {key!r}: what stands before '/' must be names joined by dots, as in 'example.org/zone', "
            f"{_MAX_PREFIX_CHARACTERS} characters at most."
        )
    _check_word(name, f"label key {key!r}")


def _check_word(word: str, what: str) -> None:
    if len(word) > _MAX_NAME_CHARACTERS or not _WORD.fullmatch(word):
        raise ValueError(f"{what}: {word!r} must be {_SYNTAX}.")
