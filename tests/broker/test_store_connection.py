"""The connection to Redis: replies, errors, pipelines, scripts, loss, and refusals that say what to do."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from rabbitry_broker.errors import ConnectError, ConnectionLost, ReplyTimeout, StoreError, without_password
from rabbitry_broker.store.redis import refusals
from rabbitry_broker.store.redis.address import parse
from rabbitry_broker.store.redis.connection import Connection
from tests.servers import RedisServer, free_port

PATIENCE_S = 20.0


@pytest.fixture(params=["unix", "tcp"])
def connection(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Connection]:
    url = redis_server.unix_url if request.param == "unix" else redis_server.url
    connection = Connection.open(url, name="test connection")
    yield connection
    connection.close()


def kill_all(server: RedisServer) -> None:
    with server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)


def test_replies_come_as_they_are(connection: Connection) -> None:
    assert connection.call("SET", "c:k", b"\0v") == b"OK"
    assert connection.call(b"GET", "c:k") == b"\0v"
    assert connection.call("GET", "c:none") is None
    assert connection.call("STRLEN", "c:k") == 2
    assert connection.call("MGET", "c:k", "c:none") == [b"\0v", None]
    assert connection.call("DEL", "c:k") == 1
    assert connection.call("CLIENT", "GETNAME") == b"test-connection"
    assert connection.server_version >= (6, 2)


def test_large_values_pass(connection: Connection) -> None:
    value = bytes(range(256)) * 40_000
    connection.call("SET", "c:large", value)
    assert connection.call("GET", "c:large") == value
    connection.call("DEL", "c:large")


def test_an_error_reply_is_raised_and_the_connection_stays_usable(connection: Connection) -> None:
    with pytest.raises(StoreError, match="wrong number of arguments"):
        connection.call("GET")
    assert connection.call("PING") == b"PONG"


def test_errors_in_a_pipeline_stand_in_their_place(connection: Connection) -> None:
    replies = connection.pipeline([("SET", "c:p", "text"), ("INCR", "c:p"), ("DEL", "c:p")])
    assert replies[0] == b"OK"
    assert isinstance(replies[1], StoreError)
    assert replies[2] == 1
    assert connection.pipeline([]) == []


def test_replies_of_send_are_owed_until_read(connection: Connection) -> None:
    connection.send("ECHO", "1")
    connection.send_many([("ECHO", "2"), ("ECHO", "3")])
    assert connection.owed == 3
    with pytest.raises(RuntimeError, match="3 replies"):
        connection.call("PING")
    assert connection.read() == b"1"
    received: list[bytes] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(received) < 2 and time.monotonic() < deadline:
        received += connection.poll()
    assert received == [b"2", b"3"]
    assert connection.owed == 0
    assert connection.poll() == []
    assert connection.call("PING") == b"PONG"


def test_read_may_time_out_and_be_repeated(connection: Connection) -> None:
    connection.send("BLPOP", "c:empty", "0.2")
    with pytest.raises(ReplyTimeout):
        connection.read(0.01)
    assert connection.owed == 1
    assert connection.read() is None
    assert connection.call_blocking("BLPOP", "c:empty", "0.05", timeout=0.05) is None


def test_who_waits_can_have_the_server_reply_when_the_time_is_over(
    connection: Connection, redis_server: RedisServer
) -> None:
    late: list[bool] = []

    def reply_now() -> None:
        late.append(True)
        with redis_server.client() as other:
            other.lpush("c:late", "now")

    # Far beyond the time that this test has: the server alone would not reply.
    assert connection.call_blocking("BLPOP", "c:late", "1000", timeout=0.01, on_late=reply_now) == [b"c:late", b"now"]
    assert late == [True]
    with redis_server.client() as other:
        other.lpush("c:early", "here")
    assert connection.call_blocking("BLPOP", "c:early", "1000", timeout=30.0, on_late=reply_now)[1] == b"here"
    assert late == [True]


def test_scripts_run_by_digest_and_survive_being_forgotten(connection: Connection) -> None:
    script = connection.script("return {KEYS[1], ARGV[1]}")
    assert script(["k"], ["a"]) == [b"k", b"a"]
    assert script.command(["k"], ["a"])[0] == b"EVALSHA"
    connection.call("SCRIPT", "FLUSH")
    assert script(["k"], ["a"]) == [b"k", b"a"]
    connection.call("SCRIPT", "FLUSH")
    replies = connection.pipeline([("PING",), script.command(["k"], ["b"]), ("ECHO", "e")])
    assert replies == [b"PONG", [b"k", b"b"], b"e"]


def test_a_new_script_keeps_its_place_in_a_pipeline(connection: Connection) -> None:
    script = connection.script("return redis.call('INCR', KEYS[1])")
    connection.call("SCRIPT", "FLUSH")
    commands = [("SET", "c:n", 5), script.command(["c:n"]), script.command(["c:n"]), ("DEL", "c:n")]
    assert connection.pipeline(commands) == [b"OK", 6, 7, 1]


def test_a_lost_connection_says_so_and_can_be_reopened(connection: Connection, redis_server: RedisServer) -> None:
    script = connection.script("return 7")
    assert script() == 7
    kill_all(redis_server)
    with pytest.raises(ConnectionLost, match=r"closed the connection|broke"):
        connection.call("PING")
    assert connection.closed
    assert connection.fileno() == -1
    for use in (lambda: connection.call("PING"), lambda: connection.send("PING"), connection.poll, connection.read):
        with pytest.raises(ConnectionLost, match="is closed"):
            use()
    connection.reopen()
    assert script() == 7


def test_poll_tells_of_a_lost_connection(connection: Connection, redis_server: RedisServer) -> None:
    kill_all(redis_server)

    def poll_until_lost() -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            connection.poll()

    with pytest.raises(ConnectionLost):
        poll_until_lost()


def test_password_user_and_database(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis(password="s3cret/@:")
    with server.client() as client:
        client.acl_setuser("ada", enabled=True, passwords=["+lovelace"], keys=["*"], commands=["+@all"])
    connection = Connection.open(server.url.rpartition("/")[0] + "/3")
    assert b"db=3" in connection.call("CLIENT", "INFO")
    connection.close()
    connection = Connection.open(f"unix://ada:lovelace@{server.socket_path}?db=2")
    assert connection.call("ACL", "WHOAMI") == b"ada"
    assert b"db=2" in connection.call("CLIENT", "INFO")
    connection.close()
    for url, text in (
        (f"redis://127.0.0.1:{server.port}", "asks for a password"),
        (f"redis://:wr0ng@127.0.0.1:{server.port}", "wrong user name or password"),
        (f"redis://ada:wr0ng@127.0.0.1:{server.port}", "wrong user name or password"),
    ):
        with pytest.raises(ConnectError, match=text) as caught:
            Connection.open(url)
        assert "wr0ng" not in str(caught.value) + repr(caught.value)
        again = pickle.loads(pickle.dumps(caught.value))
        assert str(again) == str(caught.value)


def test_too_old_a_server_is_named_with_what_is_needed(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "OLDEST_REDIS", (99, 0))
    with pytest.raises(ConnectError, match=r"is Redis \d.*too old.*needs Redis 99\.0 or newer"):
        Connection.open(redis_server.url)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("unix:///nowhere/redis.sock", "the socket does not exist"),
        ("unix://", "path of the socket is missing"),
        ("redis://host.invalid", "cannot be found"),
        ("redis://user:p4ss@localhost:notaport", "cannot be parsed"),
        ("redis://user:p4ss/word@localhost", "cannot be parsed"),
        ("redis://user:p4ss@localhost/db", "whole number"),
        ("amqp://user:p4ss@localhost", "not a Redis address"),
    ],
)
def test_wrong_addresses_are_explained(url: str, text: str) -> None:
    with pytest.raises(ConnectError, match=text) as caught:
        Connection.open(url)
    assert "p4ss" not in str(caught.value)


def test_what_is_no_redis_is_told_apart() -> None:
    with pytest.raises(ConnectError, match="nothing is listening"):
        Connection.open(f"redis://127.0.0.1:{free_port()}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_S)
        port = server.getsockname()[1]

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1000)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                client.recv(1000)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ConnectError, match="does not speak the protocol"):
            Connection.open(f"redis://127.0.0.1:{port}")
        thread.join(PATIENCE_S)
        # Nobody accepts any more: the kernel does, and silence follows.
        with pytest.raises(ConnectError, match=r"no answer within 0\.2 s"):
            Connection.open(f"redis://127.0.0.1:{port}", timeout=0.2)


def test_no_text_shows_a_password() -> None:
    for url in (
        "redis://:p4ss@host/1",
        "amqp://user:p4ss@host:5672/vhost?x=1",
        "redis://user:p4/ss@host",
        "redis://user:p4?ss@host",
        "redis://user:p4#ss@host",
        "redis://user:[p4ss@host",
        "unix:///run/redis.sock?password=p4ss",
        "user:p4ss@host/1",
        "amqp:user:p4ss@host",
    ):
        shown = without_password(url)
        assert "p4" not in shown
        assert "ss@" not in shown
    assert "p4ss" not in repr(parse("redis://:p4ss@host/1"))


def test_no_tables_of_international_names_are_loaded_for_a_plain_one(redis_server: RedisServer) -> None:
    program = (
        "import sys; from rabbitry_broker.store.redis.connection import Connection; "
        f"Connection.open({redis_server.url!r}).close(); assert 'encodings.idna' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_commands_that_the_server_holds_back_change_the_socket_s_limit_once(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    limit = Connection._set_timeout

    def counted(self: Connection, seconds: float) -> None:
        if seconds != self._timeout:
            limits.append(seconds)
        limit(self, seconds)

    monkeypatch.setattr(Connection, "_set_timeout", counted)
    for left in (0.05, 0.04, 0.03):
        connection.limit_replies(7.0)
        assert connection.call_blocking("BLPOP", "c:empty", "0.01", timeout=left) is None
    assert limits == [8.0]
    assert connection.call("PING") == b"PONG"
    assert limits == [8.0, 7.0], "what comes next has no longer than was said"
    connection.limit_replies(3.0)
    assert connection.pipeline([("PING",)]) == [b"PONG"]
    connection.limit_replies(2.0)
    connection.send("PING")
    assert limits == [8.0, 7.0, 3.0, 2.0]
