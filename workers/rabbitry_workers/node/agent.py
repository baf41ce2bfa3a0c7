"""The agent: one process a node. It runs the node's parts on one loop and one thread, and ends them.

    queues --Delivery--> intake (Held, Piece) --> Lane (resource class, job, environment) --Chunk--> ExecutorProcess
       ^                                                                                               |
       '-------------- ack, once every task is committed and every dependant published <---- DONE -----'

Broker, Redis notifications, executors and the template are all handlers on the loop; short Redis commands (crash paths,
heartbeats) are called in place. The parts: `node.parts`. Nobody but `start` and `embedded` imports this module.
"""

from __future__ import annotations

import logging
import socket
import time
from typing import Any, Final

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_workers import channel
from rabbitry_workers.node.model.config import NodeConfig
from rabbitry_workers.node.parts.tied import Parts
from rabbitry_workers.node.services.wrong_types import put_aside_wrong_types

log = logging.getLogger("rabbitry.node")

SERVICE_SECONDS: Final = 0.05
SERVICE_IDLE_SECONDS: Final = 0.25
TIDY_SECONDS: Final = 5.0


class Agent(Parts):
    """A node's agent. Construct, then `run()`; everything else happens on the loop's thread.

    Args:
        config: what the node is.
        template: (pid, control socket) of the template forked from this process.
        ready: called once the node takes work.
    """

    def __init__(self, config: NodeConfig, template: tuple[int, socket.socket], ready: Any = None) -> None:
        super().__init__(config, template)
        self._ready = ready
        self._tidied_at = time.monotonic()
        self.on_drain = lambda why: self.drain()

    # -- life --------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`."""
        put_aside_wrong_types(self.node.store)
        self.watch.start()
        self.peers.start()
        self.heartbeat.run_once()
        self.planner.run_once()
        self.watch.run_once()
        self.cancelling.start()
        for service in (
            self.heartbeat,
            self.recovery,
            self.janitor,
            self.doubts,
            self.continuations,
            self.drivers,
            self.owners,
            self.clients,
            self.copying,
            self.memory,
            self.gpus,
            self.submissions,
            self.keeping,
            self.planner,
            self.events,
        ):
            service.start()
        self._service()
        if self._ready is not None:
            self._ready()
        self.loop.run()
        self._close()

    def stop(self) -> None:
        """End the loop; what is held goes back to its queues."""
        self.loop.stop()

    def drain(self) -> None:
        """Take no more work, hand back what has not started, finish what runs, then stop."""
        if self.life.draining:
            return
        self.life.drain()
        waiting = sum(lane.waiting for lane in self.lanes.values())
        running = sum(bool(executor.chunks) for executor in self.executors.values())
        log.info("no new work; %d tasks go back to their queues, %d executors are at work", waiting, running)
        try:
            self.heartbeat.run_once()
            self.planner.run_once()
            self.keeping.leave()
        except RabbitryBrokerError as error:
            log.warning("cannot tell others that this node is leaving: %s", error)
        self.sources.close()
        self.hosting.drain()
        self.retries.put_all()
        self.handback.give_back_all()
        self.life.stop_if_drained()

    def _close(self) -> None:
        # First what might still commit or publish: from here on, its work is others'.
        # On the embedded engine the whole cluster goes, and as in Ray nobody waits for user code then.
        for executor in self.executors.values():
            executor.dismissed = executor.dismissed or "the node leaves"
            if executor.chunks or self.node.endpoint.traits.kills_at_end:
                executor.kill()
            else:
                executor.send([channel.EXIT])
        for step in (
            self.sources.close,
            self.requests.close,
            self.peers.close,
            self.custody.give_back,
            self.ends.publish_local,
            self.continuations.give_back,
            self.burials.close,
            self.consumer.close,
            self.events.close,
            self.copying.leave,
            self.say_goodbye,
            self.publisher.close,
            self.environments.close,
            self.templates.close,
            self.forker.close,
            self.log_files.close,
            self.gpus.close,
            self.submissions.close,
            self.node.store.close,
        ):
            try:
                step()
            except (RabbitryBrokerError, OSError) as error:
                # The servers may be away. What is left undone others do when the lease ends.
                log.warning("while leaving: %s", error)
        self.loop.close()

    def say_goodbye(self) -> None:
        """Others need not wait for this node any more, unless it leaves work to them."""
        self.heartbeat.close(work_left=self.custody.left or self.continuations.left)

    def _service(self) -> None:
        try:
            self.look_after_work()
        except RabbitryBrokerError as error:
            log.warning("cannot look after waiting work now: %s", error)
        finally:
            busy = self.in_hand.is_at_work() or self.heartbeat.has_news()
            self.loop.call_later(SERVICE_SECONDS if busy else SERVICE_IDLE_SECONDS, self._service)

    def look_after_work(self) -> None:
        """Every `SERVICE_SECONDS`: hand back what waits too long, retire idle executors."""
        now = time.monotonic()
        if not self.life.draining:
            self.heartbeat.refresh(waiting=self.in_hand.has_waiting())
            self.handback.run_once()
            self.sources.on_room()
        if now - self._tidied_at > TIDY_SECONDS:
            self._tidied_at = now
            self.lanes.forget_empty()
        self.holding.run_once()
        self.nesting.run_once()
        self.recall.run_once()
        self.shadows.settle_ended()
        self.custody.run_once()
        self.pool.retire_idle()
        self.environments.run_once()
