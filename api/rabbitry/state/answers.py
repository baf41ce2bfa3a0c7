"""Answers to what the state API asks: lists that are filtered and cut, and summaries. Its faces only pass them on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final, get_args, get_type_hints

from rabbitry.state.cluster import ClusterState, Row
from rabbitry.state.errors import RefusedQuery
from rabbitry.state.schemas import (
    RAY_MAX_LIMIT_FROM_API_SERVER,
    SCHEMAS,
    Filter,
    ListApiOptions,
    ListApiResponse,
    StateResource,
    StateSchema,
    SummaryApiOptions,
    SummaryResource,
)
from rabbitry.state.summaries import by_class, by_function, by_lineage, of_objects

_TRUE: Final = ("true", "1")
_FALSE: Final = ("false", "0")


def answer_list(state: ClusterState, resource: StateResource, options: ListApiOptions) -> ListApiResponse:
    """Return what there is of a kind.

    Args:
        state: of the cluster.
        resource: the kind.
        options: what is wanted of it.

    Raises:
        RefusedQuery: a filter names a column that there is not, or is of the wrong type; the limit is too large.
        ConnectionLost: the store does not answer.
    """
    if not 0 <= options.limit <= RAY_MAX_LIMIT_FROM_API_SERVER:
        raise RefusedQuery(
            f"The limit {options.limit} is not between 0 and {RAY_MAX_LIMIT_FROM_API_SERVER}: no answer has more. Use "
            "filters to see less."
        )
    schema = SCHEMAS[resource]
    wanted = _matcher(schema, options.filters or [])
    columns = schema.list_columns(detail=options.detail)
    if options.has_conflicting_filters():
        return ListApiResponse(0, 0, 0, [])
    warnings: list[str] = []
    if resource is StateResource.TASKS:
        rows, fitting = state.tasks(wanted, options.limit)
        there = sum(max(1, len(task.attempts)) for task in state.log.tasks.values() if task.header is not None)
        total = there + state.log.dropped
        if state.log.unreadable:
            warnings.append(f"{state.log.unreadable} entries of the events are not of this cluster, and left out.")
    else:
        all_rows, total = _rows(state, resource)
        there = len(all_rows)
        rows = [row for row in all_rows if wanted(row)]
        fitting = len(rows)
    shown = [{name: row.get(name) for name in columns} for row in rows[: options.limit]]
    return ListApiResponse(total, there, fitting, shown, "", warnings)


def _rows(state: ClusterState, resource: StateResource) -> tuple[list[Row], int]:
    if resource is StateResource.OBJECTS:
        return state.objects()
    readers: dict[StateResource, Callable[[], list[Row]]] = {
        StateResource.ACTORS: state.actors,
        StateResource.JOBS: state.jobs,
        StateResource.PLACEMENT_GROUPS: state.placement_groups,
        StateResource.NODES: state.nodes,
        StateResource.WORKERS: state.workers,
        StateResource.RUNTIME_ENVS: state.runtime_envs,
        StateResource.CLUSTER_EVENTS: state.cluster_events,
    }
    rows = readers[resource]()
    return rows, len(rows)


def answer_summary(state: ClusterState, resource: SummaryResource, options: SummaryApiOptions) -> ListApiResponse:
    """Return a summary, as the only entry of a list: `{"node_id_to_summary": {"cluster": ...}}`.

    Args:
        state: of the cluster.
        resource: what is summarized.
        options: what is wanted of it.

    Raises:
        ValueError: an impossible filter, or `summary_by`.
        ConnectionLost: the store does not answer.
    """
    by = options.summary_by
    if resource is SummaryResource.TASKS:
        if by not in (None, "func_name", "lineage"):
            raise ValueError(f"summary_by={by!r} must be 'func_name' or 'lineage'.")
        rows, _ = state.tasks(_matcher(SCHEMAS[StateResource.TASKS], options.filters or []))
        total = len(rows) + state.log.dropped
        summary = by_lineage(rows, state.actors()) if by == "lineage" else by_function(rows)
    elif resource is SummaryResource.ACTORS:
        rows = _filtered(state.actors(), StateResource.ACTORS, options)
        total, summary = len(rows), by_class(rows)
    else:
        found, _ = state.objects()
        rows = _filtered(found, StateResource.OBJECTS, options)
        total, summary = len(rows), of_objects(rows)
    result = {"node_id_to_summary": {"cluster": summary}}
    return ListApiResponse(total, len(rows), len(rows), result)  # type: ignore[arg-type]


def _filtered(rows: list[Row], resource: StateResource, options: SummaryApiOptions) -> list[Row]:
    wanted = _matcher(SCHEMAS[resource], options.filters or [])
    return [row for row in rows if wanted(row)]


def _matcher(schema: type[StateSchema], filters: list[Filter]) -> Callable[[Row], bool]:
    """Return what tells whether a row fits all filters.

    Raises:
        RefusedQuery: a filter names a column that cannot be filtered by, or a value that the column cannot have.
    """
    checks: list[tuple[str, bool, Any]] = []
    possible = schema.filterable_columns()
    hints: dict[str, Any] = get_type_hints(schema) if dataclasses.is_dataclass(schema) else {}
    for column, predicate, value in filters:
        name = column.lower()
        if name not in possible:
            raise RefusedQuery(
                f"The given filter column {column} is not supported. Filters are key=value or key!=value. "
                f"Supported filter columns: {', '.join(sorted(possible))}"
            )
        checks.append((name, predicate == "=", _converted(name, value, hints.get(name))))

    def fits(row: Row) -> bool:
        return all((_folded(row.get(name)) == value) is equal for name, equal, value in checks)

    return fits


def _converted(column: str, value: Any, hint: Any) -> Any:
    """Return a filter's value as the column has it; text of numbers and truth values is read, case does not count."""
    kinds = set(get_args(hint) or (hint,)) - {type(None)}
    if isinstance(value, str) and str not in kinds:
        try:
            if bool in kinds:
                if value.lower() in _TRUE + _FALSE:
                    return value.lower() in _TRUE
                raise ValueError(value)
            if int in kinds:
                return int(value)
            if float in kinds:
                return float(value)
        except ValueError:
            names = " or ".join(sorted(kind.__name__ for kind in kinds))
            raise RefusedQuery(f"The filter of column {column} wants a value of type {names}, got {value!r}.") from None
    return _folded(value)


def _folded(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value
