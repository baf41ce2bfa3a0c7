"""Counters, gauges and histograms of your own, from drivers, tasks and actors, for Prometheus.

    from rabbitry.util.metrics import Counter

    requests = Counter("requests", description="Requests that were answered.", tag_keys=("route",))
    requests.inc(tags={"route": "/"})

Every two seconds a process sends what it has measured to the store; `/metrics` of the HTTP service (`rabbitry
dashboard`) has it for all processes together, as `ray_<name>`: dashboards that were made for Ray look for that.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from rabbitry_broker.measures import COUNTER, GAUGE, HISTOGRAM, measures, shortened

_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_Self = TypeVar("_Self", bound="Metric")


def _is_invalid_metric_name(name: str, stacklevel: int = 2) -> bool:
    """Return True, and warn, if a metric cannot have this name; Ray's Python asks it, too.

    Raises:
        ValueError: it is no name at all.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"A metric needs a name, got {name!r}.")
    if _NAME.fullmatch(name):
        return False
    warnings.warn(
        f"The metric name {name!r} is invalid: only letters, digits and _ are possible, and no digit first. "
        "What it measures is discarded.",
        UserWarning,
        stacklevel=stacklevel,
    )
    return True


class Metric:
    """What the kinds of metrics have in common; make one of them.

    Args:
        name: letters, digits and `_`; a metric of any other name is discarded, with a warning.
        description: what it says.
        tag_keys: the tags that each value has.

    Raises:
        ValueError: the name is empty.
        TypeError: `tag_keys` is no tuple of text.
    """

    _kind = ""

    def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None) -> None:
        self._discarded = _is_invalid_metric_name(name, stacklevel=4)
        if tag_keys is not None and not isinstance(tag_keys, tuple):
            raise TypeError(f"tag_keys must be a tuple, got {type(tag_keys).__name__}.")
        for key in tag_keys or ():
            if not isinstance(key, str):
                raise TypeError(f"Tag keys must be text, got {key!r}.")
        self._name = name
        self._description = str(description)
        self._tag_keys = tag_keys or ()
        self._default_tags: dict[str, str] = {}
        if not self._discarded:
            self._describe()

    def _describe(self) -> None:
        measures.describe(self._name, self._kind, self._description)

    def set_default_tags(self: _Self, default_tags: Mapping[str, str]) -> _Self:
        """Give values these tags unless they say otherwise; return the metric itself.

        Raises:
            ValueError: a tag that is not among `tag_keys`.
            TypeError: a value that is no text.
        """
        for key, value in default_tags.items():
            if key not in self._tag_keys:
                raise ValueError(
                    f"The metric {self._name!r} has no tag {key!r}; its tags: {', '.join(self._tag_keys)}."
                )
            if not isinstance(value, str):
                raise TypeError(f"Values of tags must be text, got {value!r} for {key!r}.")
        self._default_tags = dict(default_tags)
        return self

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, keys of tags and default tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def _tags(self, tags: Mapping[str, str] | None) -> tuple[str, ...]:
        for key, value in (tags or {}).items():
            if not isinstance(value, str):
                raise TypeError(f"Values of tags must be text, got {value!r} for {key!r}.")
            if not isinstance(key, str):
                raise TypeError(f"Names of tags must be text, got {key!r}.")
        merged = {**self._default_tags, **(tags or {})}
        missing = [key for key in self._tag_keys if key not in merged]
        if missing:
            raise ValueError(f"The metric {self._name!r} needs a value for the tag(s) {', '.join(missing)}.")
        return shortened(merged)  # with tags beyond those of `tag_keys`, as in Ray

    def _checked(self, value: float) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"The metric {self._name!r} takes numbers, got {value!r}.")
        return float(value)


class Counter(Metric):
    """Something that only grows: `inc` adds to it. Prometheus sees `ray_<name>_total`, summed over all processes."""

    _kind = COUNTER

    def __reduce__(self) -> Any:
        return _again, (type(self), (self._name, self._description, self._tag_keys), self._default_tags)

    def inc(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        """Add to it.

        Args:
            value: how much, more than 0.
            tags: for this value, over the default ones.

        Raises:
            TypeError: no number, or a tag that is no text.
            ValueError: not more than 0, or a tag is missing or unknown.
        """
        amount = self._checked(value)
        if not amount > 0:
            raise ValueError(f"A counter grows by more than 0, got {value!r}.")
        series = self._tags(tags)
        if not self._discarded:
            measures.add(self._name, series, amount)


class Gauge(Metric):
    """A value that goes up and down: `set` says what it is, for this process. It ends with the process."""

    _kind = GAUGE

    def __reduce__(self) -> Any:
        return _again, (type(self), (self._name, self._description, self._tag_keys), self._default_tags)

    def set(self, value: float | None, tags: Mapping[str, str] | None = None) -> None:
        """Say what the value is.

        Args:
            value: the value; None changes nothing.
            tags: for this value, over the default ones.

        Raises:
            TypeError: no number, or a tag that is no text.
            ValueError: a tag is missing or unknown.
        """
        if value is None:
            return
        known, series = self._checked(value), self._tags(tags)
        if not self._discarded:
            measures.set(self._name, series, known)


class Histogram(Metric):
    """How values are distributed: `observe` takes one. All processes count into the same buckets.

    Args:
        name: as in `Metric`.
        description: as in `Metric`.
        boundaries: upper bounds of the buckets, more than 0, in order.
        tag_keys: as in `Metric`.

    Raises:
        ValueError: no boundaries, or impossible ones.
    """

    _kind = HISTOGRAM

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        if not boundaries:
            raise ValueError("A histogram needs boundaries of its buckets, e.g. boundaries=[0.1, 1.0, 10.0].")
        for at, each in enumerate(boundaries):
            if isinstance(each, bool) or not isinstance(each, (int, float)) or not each > 0:
                raise ValueError(f"Boundaries are numbers of more than 0, got {each!r} at {at} of {list(boundaries)}.")
        if sorted(set(boundaries)) != list(boundaries):
            raise ValueError(f"Boundaries stand in order, and each once, got {list(boundaries)}.")
        self.boundaries = list(boundaries)
        super().__init__(name, description, tag_keys)

    def _describe(self) -> None:
        measures.describe(self._name, self._kind, self._description, self.boundaries)

    def __reduce__(self) -> Any:
        facts = (self._name, self._description, self.boundaries, self._tag_keys)
        return _again, (type(self), facts, self._default_tags)

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Take a value.

        Args:
            value: the value.
            tags: for this value, over the default ones.

        Raises:
            TypeError: no number, or a tag that is no text.
            ValueError: a tag is missing or unknown.
        """
        seen, series = self._checked(value), self._tags(tags)
        if not self._discarded:
            measures.observe(self._name, series, seen, self.boundaries)

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, keys of tags, default tags and boundaries."""
        return {**super().info, "boundaries": self.boundaries}


def _again(cls: type[Metric], arguments: tuple[Any, ...], default_tags: dict[str, str]) -> Metric:
    """Make a metric that was pickled."""
    return cls(*arguments).set_default_tags(default_tags)
