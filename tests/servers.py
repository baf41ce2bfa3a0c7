"""Real Redis and RabbitMQ servers for tests: own ports, own directories, killed and restarted at will.

Each server is a direct child of this process, runs in the foreground, listens on the loopback address alone and keeps
everything it writes below the directory it was given. `start()` returns when the server answers a client. `kill()` is
SIGKILL; a `start()` after it uses the same port and the same data.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pika
import pytest
import redis
from pika.exceptions import AMQPError
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.server_binaries import AMQP_URL_VARIABLE, REDIS_URL_VARIABLE, find_rabbitmq_directory, find_redis_server

READY_TIMEOUT = 30.0  # seconds; Redis takes 0.1 s, RabbitMQ 4 s, and both much longer when the machine is loaded
JOINING_TIMEOUT = 120.0  # seconds, for a RabbitMQ that joins another one
STOP_TIMEOUT = 15.0  # seconds until an orderly stop becomes a kill
POLL_INTERVAL = 0.02  # seconds between two looks at a server that is not ready yet

ERLANG_DIRECTORIES = ("/usr/lib/erlang/bin", "/opt/homebrew/opt/erlang/lib/erlang/bin", "/opt/erlang/lib/erlang/bin")


class ServerError(RuntimeError):
    """A test server did not start, or a command on it failed; the message ends with what it printed."""


_given: deque[int] = deque(maxlen=200)
"""Ports that `free_port` returned last."""


def free_port() -> int:
    """Return a loopback TCP port that nothing listens on.

    It lies below the range that the kernel gives to outgoing connections: none of those can take it while its server
    is down between a kill and a restart. Nor can tests in another process of pytest-xdist: each has every fourth. It is
    none of those that were returned last either, whose servers may not listen yet.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for _ in range(200):
        port = random.SystemRandom().randrange(20000 + worker % 4, 32000, 4)
        if port in _given:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            _given.append(port)
            return port
    raise ServerError("no free TCP port between 20000 and 32000 on 127.0.0.1")


def wait_until(condition: Callable[[], object], what: str, timeout: float = 10.0, interval: float = 0.02) -> None:
    """Return as soon as a condition holds.

    Args:
        condition: called again and again until its result is true.
        what: names the condition in the error, e.g. "the node is listed".
        timeout: seconds before giving up.
        interval: seconds between two calls.

    Raises:
        AssertionError: the condition did not become true in time.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"gave up after {timeout:g} s waiting until {what}")
        time.sleep(interval)


class Server:
    """What all servers share: one child process and its life. Not for use by several threads at once."""

    name = "server"
    ready_timeout = READY_TIMEOUT

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def pid(self) -> int:
        """Process id of the server.

        Raises:
            ServerError: it is not running.
        """
        if self._process is None:
            raise ServerError(f"{self.name} in {self.directory} is not running: call start() first")
        return self._process.pid

    @property
    def running(self) -> bool:
        """True from `start()` until `stop()`, `kill()` or the death of the process."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process and return when it answers a client; nothing happens if it runs already.

        Raises:
            ServerError: it ended at once, or did not answer within `READY_TIMEOUT` seconds.
        """
        if self.running:
            return
        command, environment = self._command()
        with (self.directory / "console.log").open("ab") as console:
            # A session of its own, so that Ctrl-C stops the tests first and the tests then stop their servers.
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + self.ready_timeout
        while not self._answers():
            if not self.running or time.monotonic() > deadline:
                ended = not self.running
                self.kill()
                why = "ended while starting" if ended else f"did not answer within {self.ready_timeout:g} s"
                raise ServerError(f"{self.name} {why}; its last words:\n{self._last_words()}")
            time.sleep(POLL_INTERVAL)

    def stop(self) -> None:
        """Stop it in good order (SIGTERM), or by force after `STOP_TIMEOUT` seconds. Data stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it (SIGKILL) and return when it is gone. Data stays as the crash left it."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it in good order and start it again on the same port with the same data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause()`."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, signal_number: int) -> None:
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(signal_number)
            process.send_signal(signal.SIGCONT)  # A paused process would not hear SIGTERM.
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # What it started itself (Erlang's port programs) shares its process group and ends with it.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        self._process = None

    def _last_words(self) -> str:
        """Return the end of what the server printed and logged."""
        logs = [self.directory / "console.log", *sorted(self.directory.glob("log/*.log"))]
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in logs if path.exists())

    def _command(self) -> tuple[Sequence[str], Mapping[str, str]]:
        """Return the command line and the environment of the process."""
        raise NotImplementedError

    def _answers(self) -> bool:
        """Return True if a client can work with the server now."""
        raise NotImplementedError


class RedisServer(Server):
    """A redis-server on a loopback port and on a unix socket.

    Attributes:
        url: `redis://` address, with the password if there is one.
        unix_url: `unix://` address of the same server.
        port: TCP port.
        socket_path: path of the unix socket.
        password: password of the default user, or None.
    """

    name = "redis-server"

    def __init__(
        self,
        directory: Path,
        *,
        appendonly: bool = False,
        appendfsync: str = "everysec",
        password: str | None = None,
        config: Mapping[str, str] | None = None,
        port: int | None = None,
        tls: bool = False,
        version: tuple[int, ...] = (),
    ) -> None:
        """Prepare a server; `start()` starts it.

        Args:
            directory: where it keeps its data, log and socket; made if missing. Keep it short: the path of a unix
                socket has at most 107 bytes.
            appendonly: keep an append-only file, so that data survives `kill()`.
            appendfsync: when that file is flushed: `always`, `everysec` or `no`.
            password: what clients must give; None for no password.
            config: further lines of redis.conf, e.g. `{"maxmemory": "64mb"}`.
            port: to listen on; None for a free one.
            tls: take a binary that is built with TLS; the test is skipped where there is none.
            version: take a binary of this version or newer; the test is skipped where there is none.
        """
        super().__init__(directory)
        self._wanted: dict[str, Any] = {"tls": tls, "version": version}
        self.port = port or free_port()
        self.password = password
        self.socket_path = directory / "redis.sock"
        authority = f":{quote(password, safe='')}@" if password else ""
        self.url = f"redis://{authority}127.0.0.1:{self.port}/0"
        self.unix_url = f"unix://{authority}{self.socket_path}"
        lines = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "dir": str(directory),
            "save": '""',
            "appendonly": "yes" if appendonly else "no",
            "appendfsync": appendfsync,
            **({"requirepass": f'"{password}"'} if password else {}),
            **(config or {}),
        }
        conf = directory / "redis.conf"
        conf.touch(mode=0o600)
        conf.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))

    def client(self) -> redis.Redis:
        """Return a new client of this server, over TCP, that tries each command once; the caller closes it."""
        return self._client(self.url)

    @staticmethod
    def _client(url: str) -> redis.Redis:
        return redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0))

    def keys(self, prefix: str = "") -> set[bytes]:
        """Return the keys that begin with a prefix."""
        with self.client() as client:
            return set(client.scan_iter(match=f"{prefix}*", count=1000))

    def delete(self, prefix: str) -> None:
        """Delete the keys that begin with a prefix."""
        with self.client() as client:
            for key in client.scan_iter(match=f"{prefix}*", count=1000):
                client.unlink(key)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Have the server answer everybody BUSY, since a script runs. Set `lua-time-limit` to some milliseconds."""
        with self.client() as runner, self.client() as client:
            thread = threading.Thread(target=self._spin, args=(runner,), name="spinning")
            client.set("spin", 1)
            thread.start()

            def answers_busy() -> bool:
                try:
                    client.ping()
                except redis.ResponseError as error:
                    return "BUSY" in str(error)
                return False

            try:
                wait_until(answers_busy, "the server to be busy")
                yield
            finally:
                client.script_kill()
                thread.join()

    @staticmethod
    def _spin(client: redis.Redis) -> None:
        client.connection_pool.connection_kwargs["socket_timeout"] = None
        with suppress(redis.RedisError):  # it is killed in the end
            client.eval("while redis.call('GET', 'spin') do end", 0)

    def _command(self) -> tuple[Sequence[str], Mapping[str, str]]:
        binary = find_redis_server(**self._wanted)
        if binary is None:
            pytest.skip(f"needs a redis-server of its own ({self._wanted}); {REDIS_URL_VARIABLE} is not enough")
        # A killed predecessor leaves its socket: nobody who waits for the new one shall take it for that.
        self.socket_path.unlink(missing_ok=True)
        return [binary, str(self.directory / "redis.conf")], dict(os.environ)

    def _answers(self) -> bool:
        try:
            # By its socket first, which nobody else listens on: another server may have its port.
            for url in (self.unix_url, self.url):
                with self._client(url) as client:
                    client.ping()
            return True
        except (redis.ConnectionError, redis.TimeoutError):  # BusyLoadingError is a ConnectionError too.
            return False


class EpmdServer(Server):
    """Erlang's port mapper, a private one: a shared one would outlive the session or bring foreign nodes in sight."""

    name = "epmd"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port = free_port()

    def _command(self) -> tuple[Sequence[str], Mapping[str, str]]:
        return [_find_erlang_program("epmd"), "-port", str(self.port), "-address", "127.0.0.1"], dict(os.environ)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


class RabbitMQServer(Server):
    """A RabbitMQ node on a loopback port, with an Erlang cookie, a port mapper and a database of its own.

    Attributes:
        url: `amqp://user:password@127.0.0.1:port/vhost` of the first vhost.
        port: AMQP port.
        user: name of the administrator that `url` logs in as.
        password: password of that user.
    """

    name = "rabbitmq-server"

    def __init__(
        self,
        directory: Path,
        *,
        config: Mapping[str, str] | None = None,
        plugins: Sequence[str] = (),
        fellow: RabbitMQServer | None = None,
    ) -> None:
        """Prepare a server; `start()` starts it.

        Args:
            directory: where it keeps its database, logs and cookie; made if missing.
            config: further lines of rabbitmq.conf, e.g. `{"consumer_timeout": "10000"}`.
            plugins: names of plugins that are enabled.
            fellow: another one, which this one joins when it starts for the first time; it shares its cookie, port
                mapper and account.
        """
        super().__init__(directory)
        self.port = free_port()
        self.user = "tester"
        self.password = secrets.token_hex(8)
        self.url = self.vhost_url("tests")
        self.node_name = f"t{secrets.token_hex(4)}@localhost"
        self._distribution_port = free_port()
        self._cookie = secrets.token_hex(16)
        self._epmd = EpmdServer(directory / "epmd")
        self._owns_epmd = fellow is None
        if fellow is not None:
            self._cookie, self._epmd = fellow._cookie, fellow._epmd
            self.password = fellow.password
            self.url = self.vhost_url("tests")
            self.ready_timeout = fellow.ready_timeout = JOINING_TIMEOUT
            config = {
                "cluster_formation.peer_discovery_backend": "classic_config",
                "cluster_formation.classic_config.nodes.1": fellow.node_name,
                **(config or {}),
            }
        lines = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "default_user": self.user,
            "default_pass": self.password,
            "default_vhost": "tests",
            "default_user_tags.administrator": "true",
            "disk_free_limit.absolute": "50MB",
            "log.console": "false",
            "log.file.level": "info",
            **(config or {}),
        }
        self._write("rabbitmq.conf", "".join(f"{key} = {value}\n" for key, value in lines.items()))
        self._write("enabled_plugins", f"[{','.join(plugins)}].\n")
        self._write(".erlang.cookie", self._cookie, mode=0o400)

    def vhost_url(self, vhost: str) -> str:
        """Return the address of a vhost of this server, with user and password."""
        return f"amqp://{self.user}:{self.password}@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    @cached_property
    def version(self) -> tuple[int, ...]:
        """Its version, e.g. `(4, 0, 5)`. It has to run when this is first asked for."""
        return tuple(int(part) for part in self.evaluate("rabbit_misc:version().", as_text=True).split("."))

    def add_vhost(self, vhost: str, *, default_queue_type: str = "classic") -> str:
        """Make an empty vhost with all permissions for `user`; return its address."""
        self.evaluate(
            f'ok = rabbit_vhost:add(<<"{vhost}">>, #{{default_queue_type => <<"{default_queue_type}">>}}, '
            f'<<"{self.user}">>), '
            f'rabbit_auth_backend_internal:set_permissions(<<"{self.user}">>, <<"{vhost}">>, '
            f'<<".*">>, <<".*">>, <<".*">>, <<"{self.user}">>).'
        )
        return self.vhost_url(vhost)

    def delete_vhost(self, vhost: str) -> None:
        """Remove a vhost with all queues and connections in it; nothing happens if there is none."""
        self.evaluate(
            f'case rabbit_vhost:exists(<<"{vhost}">>) of '
            f'true -> rabbit_vhost:delete(<<"{vhost}">>, <<"{self.user}">>); false -> ok end.'
        )

    def queues(self, vhost: str) -> list[str]:
        """Return the names of the queues of a vhost, sorted."""
        names = self.evaluate(
            f'lists:foldl(fun(Q, A) -> {{resource, _, queue, N}} = element(2, Q), [A, N, "\\n"] end, [], '
            f'rabbit_amqqueue:list(<<"{vhost}">>)).',
            as_text=True,
        )
        return sorted(names.splitlines())

    def ctl(self, *arguments: str, timeout: float = 30.0) -> str:
        """Run `rabbitmqctl` on this node and return what it printed; takes 1 s or more, `evaluate` is quicker.

        Raises:
            ServerError: the command failed.
        """
        program = str(_rabbitmq_directory() / "rabbitmqctl")
        return self._run([program, "--quiet", "--node", self.node_name, *arguments], timeout=timeout)

    def evaluate(self, expression: str, *, as_text: bool = False, timeout: float = 30.0) -> str:
        """Evaluate an Erlang expression inside the node.

        Args:
            expression: ends with a full stop.
            as_text: the value is an iolist, and is returned as the text that it spells.
            timeout: seconds until the call is given up.

        Returns:
            The value as Erlang prints it, or its text.

        Raises:
            ServerError: the expression failed.
        """
        # The value goes by a file: erl_call prints a part of the values only, rabbitmqctl all of them but slowly.
        answer = self.directory / f"answer.{secrets.token_hex(4)}"
        shown = "Value" if as_text else 'io_lib:format("~0p", [Value])'
        program = (
            f'Answer = try Value = begin {expression.rstrip().removesuffix(".")} end, ["ok ", {shown}] '
            f'catch Class:Reason -> ["error ", io_lib:format("~0p", [{{Class, Reason}}])] end, '
            f'ok = file:write_file("{answer}", unicode:characters_to_binary(Answer)).\n'
        )
        erl_call = _find_erlang_program("erl_call", required=False)
        try:
            printed = ""
            if erl_call:
                # The cookie is on the command line for 20 ms: it guards nothing but a server made for these tests.
                call = [erl_call, "-sname", self.node_name, "-c", self._cookie, "-e"]
                printed = self._call_into(call, program, timeout)
            else:
                self.ctl("eval", program, timeout=timeout)
            status, _, value = answer.read_text().partition(" ")
        except FileNotFoundError:
            raise ServerError(f"the node answered {printed!r} to {program}") from None
        finally:
            answer.unlink(missing_ok=True)
        if status != "ok":
            raise ServerError(f"{value} from {expression}")
        return value

    def _call_into(self, call: Sequence[str], program: str, timeout: float) -> str:
        """Run erl_call until it has reached the node: it gives up soon where all processors are busy."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self._run(call, timeout=timeout, text=program)
            except ServerError as error:
                # Nothing has run then. Any other failure may have.
                if "failed to connect to node" not in str(error) or time.monotonic() >= deadline:
                    raise

    def start(self) -> None:
        """Start port mapper and node; see `Server.start`."""
        self._epmd.start()
        super().start()

    def _end(self, signal_number: int) -> None:
        super()._end(signal_number)
        if self._owns_epmd:
            self._epmd.kill()

    def _command(self) -> tuple[Sequence[str], Mapping[str, str]]:
        return [str(_rabbitmq_directory() / "rabbitmq-server")], self._environment()

    def _environment(self) -> dict[str, str]:
        path = self.directory
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RABBITMQ_", "ERL_"))}
        return {
            **inherited,
            "HOME": str(path),  # of .erlang.cookie
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node_name,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(path / "mnesia"),
            "RABBITMQ_LOG_BASE": str(path / "log"),
            "RABBITMQ_PID_FILE": str(path / "rabbitmq.pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(path / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(path / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(path / "rabbitmq-env.conf"),  # Absent: the machine's own must not count.
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(path / "advanced.config"),  # Absent too.
            "RABBITMQ_GENERATED_CONFIG_DIR": str(path / "config"),
            # Idle schedulers that spin would take the two cores of a small machine from what is being tested.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
            # The script then becomes the node (exec) instead of watching over it: `pid` is the Erlang machine.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _answers(self) -> bool:
        parameters = pika.URLParameters(self.url)
        parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = 5
        try:
            # Without this look, pika would log an error for each refused attempt.
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            pika.BlockingConnection(parameters).close()
        except (OSError, AMQPError):
            return False
        return True

    def _run(self, command: Sequence[str], *, timeout: float, text: str = "") -> str:
        environment = self._environment()
        # This node's settings of the virtual machine and its port are not for the tools.
        del environment["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"], environment["RABBITMQ_DIST_PORT"]
        try:
            done = subprocess.run(
                command, env=environment, input=text, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise ServerError(f"{Path(command[0]).name} did not end within {timeout:g} s") from None
        if done.returncode != 0:
            raise ServerError(f"{Path(command[0]).name} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
        return done.stdout

    def _write(self, name: str, content: str, mode: int = 0o600) -> None:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(content)
        path.chmod(mode)


class RabbitMQCluster:
    """Three RabbitMQ nodes on this machine that have joined each other.

    Attributes:
        servers: the nodes; each may be killed, paused and started by itself.
        url: `amqp://user:password@host:port,host:port,host:port/vhost`.
    """

    def __init__(self, directory: Path, *, size: int = 3) -> None:
        """Prepare the cluster; `start()` starts it."""
        # Found by everybody, and ended by us: the port mapper must outlive each of the nodes.
        self._epmd_owner = first = RabbitMQServer(directory / "0")
        first._owns_epmd = False
        self.servers = [first, *(RabbitMQServer(directory / str(at), fellow=first) for at in range(1, size))]
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        self.url = f"amqp://{first.user}:{first.password}@{hosts}/tests"

    def start(self) -> None:
        """Start all nodes, which join the first.

        Raises:
            ServerError: one does not start, or has not joined.
        """
        for server in self.servers:
            server.start()
        try:
            wait_until(self.all_have_joined, "all RabbitMQ nodes see each other", READY_TIMEOUT)
        except AssertionError as error:
            raise ServerError(str(error)) from None

    def all_have_joined(self) -> bool:
        """True if each node says that all are running; the first ones learn of the last a moment after it answers."""
        count = str(len(self.servers))
        return all(server.evaluate("length(rabbit_nodes:all_running()).") == count for server in self.servers)

    def kill(self) -> None:
        """Kill all nodes and their port mapper."""
        for server in self.servers:
            server.kill()
        self._epmd_owner._epmd.kill()


class ForeignRedisServer(RedisServer):
    """A Redis that runs already, at `RABBITRY_TEST_REDIS_URL`; tests that want to stop it are skipped."""

    def __init__(self, url: str) -> None:
        self._process = None
        parts = urlsplit(url)
        self.url = self.unix_url = url
        self.port = parts.port or 6379
        self.password = parts.password

    def start(self) -> None:
        """Check that it answers.

        Raises:
            ServerError: it does not.
        """
        if not self._answers():
            raise ServerError(f"no Redis answers at {REDIS_URL_VARIABLE}")

    def _end(self, signal_number: int) -> None:
        pytest.skip(f"needs a redis-server of its own; {REDIS_URL_VARIABLE} names a foreign one")


class ForeignRabbitMQServer(RabbitMQServer):
    """A RabbitMQ that runs already, at `RABBITRY_TEST_AMQP_URL`; tests that want more than one vhost are skipped."""

    def __init__(self, url: str) -> None:
        self._process = None
        parts = urlsplit(url)
        self.url = url
        self.port = parts.port or 5672
        self.user = parts.username or "guest"
        self.password = parts.password or "guest"

    def start(self) -> None:
        """Check that it answers.

        Raises:
            ServerError: it does not.
        """
        if not self._answers():
            raise ServerError(f"no RabbitMQ answers at {AMQP_URL_VARIABLE}")

    def evaluate(self, expression: str, *, as_text: bool = False, timeout: float = 30.0) -> str:
        """Skip the test."""
        raise self._skip()

    def ctl(self, *arguments: str, timeout: float = 30.0) -> str:
        """Skip the test."""
        raise self._skip()

    def _end(self, signal_number: int) -> None:
        raise self._skip()

    def _skip(self) -> Any:
        pytest.skip(f"needs a RabbitMQ of its own; {AMQP_URL_VARIABLE} names a foreign one")


def _rabbitmq_directory() -> Path:
    directory = find_rabbitmq_directory()
    if directory is None:
        pytest.skip(f"needs a rabbitmq-server of its own: none found, and {AMQP_URL_VARIABLE} is not enough")
    return directory


def _find_erlang_program(name: str, *, required: bool = True) -> str:
    places = [os.environ.get("PATH", ""), *ERLANG_DIRECTORIES]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None and required:
        raise ServerError(f"no {name} on PATH, which comes with Erlang: install the rabbitmq-server package again")
    return found or ""
