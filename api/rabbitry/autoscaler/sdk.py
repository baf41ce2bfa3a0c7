"""`request_resources`: ask for room before the work is there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rabbitry import current, program
from rabbitry.arguments import shown, wrong_type
from rabbitry.demand import Need, write_request
from rabbitry.labels import selector_text
from rabbitry.outages import with_public_errors
from rabbitry_broker.resources import ResourceRequest

MOST_BUNDLES = 100_000


@with_public_errors
def request_resources(
    num_cpus: int | None = None,
    bundles: list[dict[str, float]] | None = None,
    bundle_label_selectors: list[dict[str, str]] | None = None,
) -> None:
    """Ask that the cluster be large enough for so much at the same time, what runs in it included.

    `rabbitry autoscale` starts nodes for it and keeps them, `rabbitry status` shows it; nothing is reserved. What a job
    (the program that called `init`, with its tasks and actors) asks for counts until its next call, or its end. Other
    than in Ray, where the last call of any job counts, jobs do not override each other: all that they ask for has to
    fit together.

    Args:
        num_cpus: so many bundles of one CPU each.
        bundles: resources by name, each of which has to fit on one node.
        bundle_label_selectors: which labels the node of each bundle must have, as the option `label_selector`.

    Raises:
        RuntimeError: no session.
        TypeError: an argument is of the wrong type.
        ValueError: an impossible amount or selector, or not as many selectors as bundles.

    Example:
        >>> request_resources(num_cpus=4, bundles=[{"GPU": 1, "CPU": 2}])     # doctest: +SKIP
        >>> request_resources()  # no more     # doctest: +SKIP
    """
    client = current.peek()
    if client is None:
        raise RuntimeError(program.not_started())
    write_request(
        client.store, client.keys, client.signer, client.job, _needs(num_cpus, bundles, bundle_label_selectors)
    )


def _needs(num_cpus: Any, bundles: Any, selectors: Any) -> list[Need]:
    if num_cpus is not None and (not isinstance(num_cpus, int) or isinstance(num_cpus, bool)):
        raise wrong_type("num_cpus", num_cpus, "a whole number")
    if bundles is not None and not isinstance(bundles, list):
        raise wrong_type("bundles", bundles, 'a list of resources, such as [{"CPU": 2}]')
    if selectors is not None:
        if bundles is None:
            raise ValueError("bundle_label_selectors needs `bundles`: one selector for each.")
        if not isinstance(selectors, list) or len(selectors) != len(bundles):
            raise ValueError(f"bundle_label_selectors must be a list of {len(bundles)} selectors, one for each bundle.")
    if max(num_cpus or 0, len(bundles or ())) > MOST_BUNDLES:
        raise ValueError(f"more than {MOST_BUNDLES} bundles are not possible")
    counts: dict[tuple[str, str], int] = {}
    if num_cpus is not None and num_cpus > 0:
        counts["CPU=1", ""] = num_cpus
    for at, bundle in enumerate(bundles or ()):
        selector = _selector(selectors[at]) if selectors else ""
        request = _request(bundle)
        if request:
            key = request.class_name, selector
            counts[key] = counts.get(key, 0) + 1
    return [Need(resources, selector, count) for (resources, selector), count in counts.items()]


def _request(bundle: Any) -> ResourceRequest:
    if not isinstance(bundle, Mapping):
        raise wrong_type("each bundle", bundle, 'a dict of amounts by resource, such as {"CPU": 2}')
    for name, amount in bundle.items():
        if not isinstance(name, str):
            raise TypeError(f"each key of a bundle must be the name of a resource, but one is {shown(name)}.")
        if isinstance(amount, bool) or not isinstance(amount, (int, float)):
            raise TypeError(f"each amount of a bundle must be a number, but that of {name!r} is {shown(amount)}.")
        if not math.isfinite(amount):
            raise ValueError(f"each amount of a bundle must be finite, but that of {name!r} is {amount}.")
    return ResourceRequest.from_floats(bundle)


def _selector(selector: Any) -> str:
    if isinstance(selector, Mapping) and all(isinstance(each, str) for pair in selector.items() for each in pair):
        return selector_text(selector)
    raise ValueError(
        f'each label selector must be a dict of text, such as {{"zone": "a"}}, but one is {shown(selector)}.'
    )


__all__ = ["request_resources"]
