"""`rabbitry autoscale`: runs a command that starts and stops nodes, as the demand says.

    look --nodes are missing, twice in a row--> COMMAND with more
     |  '-nothing is missing, nodes were idle for long--> they leave --gone--> COMMAND with fewer
     '--below --min--> COMMAND with --min

It keeps nothing but what it asked for last: any moment it may be killed and started again. COMMAND is told how many
nodes there shall be, so to run it twice does no harm. Nodes that leave do so in good order: they take no more work,
finish what they run, and hand back the rest.
"""

from __future__ import annotations

import logging
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rabbitry.demand import Demand, read_demand
from rabbitry.nodes import labels_of
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.implicit import ADDRESS_PREFIX
from rabbitry_broker.messages import encode
from rabbitry_broker.resources import HEAD, ResourceRequest
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.reader import Reader
from rabbitry_workers.fitting import Shape, fit
from rabbitry_workers.status import queue_depths

COUNT: Final = "{n}"
HEARD_SECONDS: Final = 30.0  # until a node that was asked to leave says that it does
GONE_SECONDS: Final = 2.0  # from a node's goodbye to the end of its process: until then the command may count it
RETRY_SECONDS: Final = 10.0  # until a command that failed is run again
DEFAULT_SHAPE: Final = Shape(ResourceRequest.from_floats({"CPU": 1}))  # until a node is seen

log = logging.getLogger("rabbitry.autoscale")


@dataclass(frozen=True)
class ScalerOptions:
    """What `rabbitry autoscale` was told.

    Attributes:
        least: nodes that there shall be at least.
        most: nodes that there shall be at most.
        command: with `{n}` where the number of nodes is to stand.
        idle: seconds without work after which a node may go.
        every: seconds from one look to the next.
        joining: seconds that a node has to join after COMMAND; then it is not counted on any more.
        labels: nodes without these are somebody else's: used, but neither counted nor stopped.
        resources: what a node has that COMMAND starts; None for what the newest one has.
        retire: command line of a shell that stops one node: `{host}`, `{name}`, `{id}` and `{pid}` are its own; "" for
            the message that `rabbitry stop` sends.

    Raises:
        ValueError: an impossible number, or a command without `{n}`.
    """

    least: int
    most: int
    command: Sequence[str]
    idle: float = 60.0
    every: float = 2.0
    joining: float = 120.0
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] | None = None
    retire: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most or not self.most:
            raise ValueError(f"--min {self.least} --max {self.most}: 0 <= min <= max and 1 <= max must hold")
        if not any(COUNT in part for part in self.command):
            raise ValueError(
                f"the command has no {COUNT} where the number of nodes is to stand. Write, for example: "
                "rabbitry autoscale --min 1 --max 8 -- docker compose up -d --no-recreate --scale worker={n}"
            )
        for name, value, least in (
            ("--idle", self.idle, 0.0),
            ("--every", self.every, 0.05),
            ("--joining", self.joining, 0.0),
        ):
            if not least <= value < float("inf"):
                raise ValueError(f"{name} must be {least:g} seconds or more, but is {value}")


class Scaler:
    """One scaler; `run_once` is one look. One thread.

    Args:
        options: what it was told.
        look: returns the demand.
        start: has there be so many nodes; False if that failed.
        retire: has nodes (by their records) leave.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        options: ScalerOptions,
        look: Callable[[], Demand],
        start: Callable[[int], bool],
        retire: Callable[[Sequence[dict[str, Any]]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._look = look
        self._start = start
        self._retire = retire
        self._clock = clock
        self._wanted = 0
        self._asked_at = float("-inf")
        self._not_before = float("-inf")
        self._missing = False  # the last look found that nodes are missing
        self._leaving: dict[bytes, float] = {}  # nodes that were asked to leave, and when
        self._owed = False  # nodes were asked to leave, and the command does not know yet
        self._gone_at = float("-inf")
        self._seen = DEFAULT_SHAPE
        self._told: frozenset[tuple[str, str]] = frozenset()

    def run_once(self) -> None:
        """Look, and do what is to be done.

        Raises:
            RabbitryBrokerError: the servers do not answer.
        """
        options, now = self._options, self._clock()
        demand = self._look()
        ours = [node for node in demand.nodes if options.labels.items() <= labels_of(node).items()]
        self._look_after_leaving(ours, now)
        staying = [node for node in ours if not node["draining"] and node["id"] not in self._leaving]
        coming = max(0, self._wanted - len(staying)) if now - self._asked_at < options.joining else 0
        found = fit(demand, self._shape(staying), on_their_way=coming, without=self._leaving)
        self._tell(found.hopeless)
        have = len(staying) + coming
        wanted = max(options.least, min(options.most, have + found.coming))
        # A single look may see what the next one finds taken.
        sure = self._missing or have < options.least
        self._missing = wanted > have
        if wanted > have and sure:
            log.info("%d nodes, %d on their way, %d more are needed", len(staying), coming, found.coming)
            self._ask(wanted, now)
        elif self._owed and not self._leaving and now - self._gone_at >= GONE_SECONDS:
            self._ask(max(options.least, have), now)
        elif not (self._missing or coming or found.coming or self._leaving or self._owed):
            self._send_away(demand, staying, now)

    def _look_after_leaving(self, ours: Sequence[dict[str, Any]], now: float) -> None:
        """Forget those that are gone."""
        # The message may have been lost: a node that does not drain after a while was not asked.
        states = {node["id"]: node["draining"] for node in ours}
        leaving = self._leaving
        self._leaving = {
            node: since
            for node, since in self._leaving.items()
            if node in states and (states[node] or now - since < HEARD_SECONDS)
        }
        if len(self._leaving) < len(leaving):
            self._gone_at = now

    def _ask(self, count: int, now: float) -> None:
        """Have there be so many nodes that stay; those that still leave are there as well."""
        if now >= self._not_before:
            if self._start(min(self._options.most, count + len(self._leaving))):
                self._wanted, self._asked_at, self._owed = count, now, bool(self._leaving)
            else:
                self._not_before = now + RETRY_SECONDS

    def _send_away(self, demand: Demand, staying: Sequence[dict[str, Any]], now: float) -> None:
        """Have nodes leave that were idle for long, as many as are not needed for anything."""
        going: list[dict[str, Any]] = []
        for node in sorted(staying, key=_keeps_longer):
            if len(staying) - len(going) <= self._options.least:
                break
            if not _is_idle(node) or node["idle"] < self._options.idle:
                continue
            ids = [each["id"] for each in (*going, node)]
            if not fit(demand, self._shape(staying), without=ids).coming:
                going.append(node)
        if going:
            log.info("%d of %d nodes were idle for %g s: they leave", len(going), len(staying), self._options.idle)
            self._leaving = {node["id"]: now for node in going}
            self._wanted, self._owed = len(staying) - len(going), True
            self._retire(going)

    def _shape(self, staying: Sequence[dict[str, Any]]) -> Shape:
        """Return what a node has that comes: as told, else as the newest of ours."""
        options = self._options
        if staying:
            newest = max(staying, key=lambda node: float(node["started"]))
            own = {name: each for name, each in newest["totals"].items() if not name.startswith(ADDRESS_PREFIX)}
            self._seen = Shape(ResourceRequest.from_floats(own), newest["labels"])
        labels = {**self._seen.labels, **options.labels}
        totals = self._seen.totals if options.resources is None else ResourceRequest.from_floats(options.resources)
        return Shape(totals, labels)

    def _tell(self, hopeless: Sequence[tuple[str, str]]) -> None:
        fresh = frozenset(hopeless) - self._told
        self._told = frozenset(hopeless)
        for resources, selector in sorted(fresh):
            log.warning(
                "%s waits, and no node that the command starts could take it (what they have: --resources, --labels)",
                resources + (f" with labels {selector}" if selector else ""),
            )


def _keeps_longer(node: Mapping[str, Any]) -> tuple[bool, float]:
    """Sort nodes: those that go first come first, the newest; the head goes last."""
    return HEAD in node["totals"], -float(node["started"])


def _is_idle(node: Mapping[str, Any]) -> bool:
    available = node["available"]
    return not node["waiting"] and all(available.get(name, 0.0) >= total for name, total in node["totals"].items())


def run(endpoint: Endpoint, options: ScalerOptions, *, timeout: float = 5.0, rounds: float = float("inf")) -> None:
    """Scale until the process is ended.

    Args:
        endpoint: the cluster.
        options: what is to be done.
        timeout: seconds to reach each server.
        rounds: looks after which to return.

    Raises:
        ConnectError: a server cannot be reached at the start, or the cluster is not ours.
    """
    from rabbitry.cluster import check_cluster

    check_cluster(endpoint, timeout=timeout)
    hands = Hands(endpoint, options, timeout)
    scaler = Scaler(options, hands.look, hands.start, hands.retire)
    while rounds > 0:
        rounds -= 1
        try:
            scaler.run_once()
        except RabbitryBrokerError as error:
            log.warning("cannot look at the cluster now: %s", error)
        time.sleep(options.every)


class Hands:
    """What a scaler does to the world."""

    def __init__(self, endpoint: Endpoint, options: ScalerOptions, timeout: float) -> None:
        self._endpoint = endpoint
        self._options = options
        self._timeout = timeout
        self._keys, self._signer = Keys.of(endpoint), Signer(endpoint.secrets)

    def look(self) -> Demand:
        """Return the demand."""
        with Reader(self._endpoint, timeout=self._timeout) as reader:
            return read_demand(reader, self._keys, self._signer, queue_depths(self._endpoint, reader))

    def start(self, count: int) -> bool:
        """Run the command with a number of nodes; False if it failed."""
        command = [part.replace(COUNT, str(count)) for part in self._options.command]
        log.info("running: %s", shlex.join(command))
        try:
            code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
        except OSError as error:
            log.error("the command cannot be run: %s", error)
            return False
        if code:
            log.error("the command ended with exit code %d; it is run again when nodes are missing then", code)
        return not code

    def retire(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Have nodes leave."""
        for node in nodes:
            if not self._options.retire:
                with Reader(self._endpoint, timeout=self._timeout) as reader:
                    message = self._signer.seal(b"control", encode(["drain", node["id"]]))
                    reader.call(b"PUBLISH", self._keys.control_channel, message)
                continue
            line = self._options.retire
            facts = {"host": node["hostname"], "name": node["name"], "id": node["id"].hex(), "pid": node["pid"]}
            for word, value in facts.items():
                line = line.replace(f"{{{word}}}", shlex.quote(str(value)))
            log.info("running: %s", line)
            code = subprocess.run(["sh", "-c", line], stdin=subprocess.DEVNULL, check=False).returncode
            if code:
                log.error("it ended with exit code %d", code)
