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
only `NodeLabelSchedulingStrategy` can ask for. Selectors any of which would do, as `fallback_strategy` has them, are
one text with `|` between them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rabbitry.arguments import shown

RESERVED_PREFIX: Final = "ray.io/"
"""Keys that nodes set themselves begin so."""

ANY: Final = "*"
NONE: Final = "!*"

VALUES_SHOWN: Final = 10
"""Values of a label that are named at most when none of them fits."""

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
            raise TypeError(f"label {shown(key)} is {shown(value)}, a {type(value).__name__}; labels are text")
        if value:
            _check_word(value, f"value of label {shown(key)}")
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


def any_of(texts: Sequence[str]) -> str:
    """Return the canonical text of several selectors, any of which would do.

    What asks for more than another does is left out.

    >>> any_of(["zone=b", "zone=a", "disk=ssd;zone=a"]), any_of(["zone=a", ""])
    ('zone=a|zone=b', '')
    """
    alternatives = {frozenset(filter(None, text.split(";"))) for text in texts}
    least = [each for each in alternatives if not any(other < each for other in alternatives)]
    return "|".join(sorted(";".join(sorted(each)) for each in least))


@functools.lru_cache(maxsize=1024)
def parse_selector(text: str) -> tuple[Condition, ...]:
    """Return the conditions of the canonical text of one selector; remembered, as a cluster has few.

    Raises:
        ValueError: `text` is not one that `selector_text` made.
    """
    conditions = []
    for part in filter(None, text.split(";")):
        key, separator, condition = part.partition("=")
        if not separator:
            raise ValueError(f"{shown(text)} is no label selector such as 'disk=!hdd;zone=in(a,b)' (at {shown(part)})")
        if condition in (ANY, NONE):
            conditions.append(Condition(key, (), condition == NONE))
        else:
            conditions.append(_condition(key, condition))
    return tuple(conditions)


def matches(text: str, labels: Mapping[str, str]) -> bool:
    """Return True if a node with `labels` satisfies the selector of this canonical text; "" fits every node.

    >>> matches("disk=!hdd;zone=in(a,b)", {"zone": "a"}), matches("zone=b|zone=c", {"zone": "a"})
    (True, False)
    """
    return any(all(condition.holds(labels) for condition in parse_selector(part)) for part in text.split("|"))


def why_unmatched(text: str, nodes: Sequence[Mapping[str, str]]) -> str:
    """Return why no node satisfies the selector of this canonical text, for a person to read.

    Args:
        text: of the selector.
        nodes: the labels of each node, none of which satisfies it.

    >>> why_unmatched("zone=c", [{"zone": "b"}, {"zone": "a"}, {}])
    "label zone must be c, and nodes have 'a', 'b'"
    """
    return "; nor: ".join(_why_unmatched(part, nodes) for part in text.split("|"))


def _why_unmatched(text: str, nodes: Sequence[Mapping[str, str]]) -> str:
    lacking = []
    for condition in parse_selector(text):
        if not any(condition.holds(labels) for labels in nodes):
            values = sorted({labels[condition.key] for labels in nodes if condition.key in labels})
            have = ", ".join(map(repr, values[:VALUES_SHOWN])) + (", ..." if len(values) > VALUES_SHOWN else "")
            wanted = str(condition).removeprefix(f"{condition.key}=")
            lacking.append(
                f"label {condition.key} must be {wanted}, and " + (f"nodes have {have}" if have else "no node has it")
            )
    return "; ".join(lacking) or f"no node has all of the labels {text} together"


def _condition(key: str, text: str) -> Condition:
    check_label_key(key)
    if not isinstance(text, str):
        raise TypeError(
            f"label selector: the condition of {shown(key)} is {shown(text)}, a {type(text).__name__}; it must be text"
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
                    f"label selector: {shown(text)} is no condition for {shown(key)}. Write a value, '!value', "
                    f"'in(a,b)' or '!in(a,b)', where a value is {_SYNTAX}."
                )
    return Condition(key, tuple(sorted(set(values))), negated)


def check_label_key(key: str) -> None:
    """Check that `key` is a label key.

    Raises:
        TypeError: it is no text.
        ValueError: it has not the syntax of a Kubernetes label key.
    """
    if not isinstance(key, str):
        raise TypeError(f"label key {shown(key)} is a {type(key).__name__}; label keys are text")
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > _MAX_PREFIX_CHARACTERS or not all(_WORD.fullmatch(part) for part in prefix.split("."))):
        raise ValueError(
            f"label key {shown(key)}: what stands before '/' must be names joined by dots, as in 'example.org/zone', "
            f"{_MAX_PREFIX_CHARACTERS} characters at most."
        )
    _check_word(name, f"label key {shown(key)}")


def _check_word(word: str, what: str) -> None:
    if len(word) > _MAX_NAME_CHARACTERS or not _WORD.fullmatch(word):
        raise ValueError(f"{what}: {shown(word)} must be {_SYNTAX}.")
