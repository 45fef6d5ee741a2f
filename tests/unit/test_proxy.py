"""The network proxy the fault tests rely on: each kind of weather does exactly what it says."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.helpers.proxy import Direction, Ending, Proxy


class Echo:
    """A server that sends back what it gets, and remembers it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.received = bytearray()
        self.endings: list[str] = []
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listener.getsockname()
        return str(host), int(port)

    def close(self) -> None:
        # shutdown, since close alone does not wake a thread in accept.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(10)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self.threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    self.received += data
                    connection.sendall(data)
                self.endings.append("fin")
            except OSError:
                self.endings.append("rst")


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(proxy.address, timeout=10)


def read_exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := connection.recv(count - len(data))):
        data += more
    return data


def read_to_end(connection: socket.socket) -> tuple[bytes, str]:
    data = b""
    try:
        while more := connection.recv(65536):
            data += more
    except ConnectionResetError:
        return data, "rst"
    return data, "fin"


def pattern(count: int) -> bytes:
    return bytes(i * i % 251 for i in range(count))


@pytest.mark.parametrize("fragment", [False, True])
def test_bytes_pass_unchanged_and_are_counted(echo: Echo, fragment: bool) -> None:
    sent = pattern(300_000)
    with Proxy(echo.address, fragment=fragment, jitter_ms=1, seed=7) as proxy:
        with connect(proxy) as client:
            threading.Thread(target=client.sendall, args=(sent,)).start()
            assert read_exactly(client, len(sent)) == sent
            assert proxy.open_connections == 1
        proxy.wait_until(lambda p: p.open_connections == 0)
        assert [proxy.delivered(way) for way in Direction] == [len(sent)] * 2
        assert proxy.connections == 1


def test_a_half_close_passes_and_the_answer_still_arrives(echo: Echo) -> None:
    with Proxy(echo.address, delay_ms=20) as proxy, connect(proxy) as client:
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == (b"last words", "fin")


def test_delay_holds_each_way_but_keeps_throughput(echo: Echo) -> None:
    sent = pattern(300_000) * 40
    with Proxy(echo.address, delay_ms=60) as proxy, connect(proxy) as client:
        begin = time.monotonic()
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        round_trip = time.monotonic() - begin
        assert 0.12 <= round_trip < 10
        begin = time.monotonic()
        threading.Thread(target=client.sendall, args=(sent,)).start()
        assert read_exactly(client, len(sent)) == sent
        # About two hundred chunks: one sleep a chunk would take over eleven seconds.
        assert time.monotonic() - begin < 10


def test_throttle_bounds_the_rate(echo: Echo) -> None:
    with Proxy(echo.address, rate=200_000) as proxy, connect(proxy) as client:
        begin = time.monotonic()
        client.sendall(bytes(60_000))
        assert len(read_exactly(client, 60_000)) == 60_000
        assert 0.25 < time.monotonic() - begin < 30


@pytest.mark.parametrize("how", list(Ending))
@pytest.mark.parametrize("count", [0, 1, 12_345, 65_536, 100_000])
def test_a_cut_lets_exactly_so_many_bytes_reach_the_client(
    echo: Echo, count: int, how: Ending
) -> None:
    sent = pattern(150_000)
    with Proxy(echo.address) as proxy, connect(proxy) as client:
        proxy.cut_after(count, Direction.DOWN, how=how)
        with contextlib.suppress(OSError):
            client.sendall(sent)
        got, ending = read_to_end(client)
        assert got == sent[:count]
        assert ending == how.name.lower()


@pytest.mark.parametrize("how", list(Ending))
def test_a_cut_lets_exactly_so_many_bytes_reach_the_server(echo: Echo, how: Ending) -> None:
    with Proxy(echo.address) as proxy:
        proxy.cut_after(777, Direction.UP, how=how)
        with connect(proxy) as client:
            client.sendall(pattern(1000))
            read_to_end(client)
        proxy.wait_until(lambda _: bool(echo.endings))
        assert bytes(echo.received) == pattern(777)
        assert echo.endings == [how.name.lower()]


def test_a_cut_happens_so_often_and_no_more(echo: Echo) -> None:
    with Proxy(echo.address) as proxy:
        proxy.cut_after(3, Direction.DOWN, times=2)
        answers = []
        for _ in range(3):
            with connect(proxy) as client:
                client.sendall(b"hello")
                answers.append(read_exactly(client, 5))
        assert answers == [b"hel", b"hel", b"hello"]


def test_cut_now_ends_all_connections_and_new_ones_work(echo: Echo) -> None:
    with Proxy(echo.address) as proxy, connect(proxy) as first, connect(proxy) as second:
        proxy.wait_until(lambda p: p.open_connections == 2)
        assert proxy.cut_now() == 2
        assert read_to_end(first) == (b"", "rst")
        assert read_to_end(second) == (b"", "rst")
        with connect(proxy) as third:
            third.sendall(b"again")
            assert read_exactly(third, 5) == b"again"


def test_a_swallowed_direction_is_lost_while_the_other_works(echo: Echo) -> None:
    with Proxy(echo.address) as proxy, connect(proxy) as client:
        proxy.swallow(Direction.DOWN)
        client.sendall(b"lost")
        proxy.wait_until(lambda _: bytes(echo.received) == b"lost")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert proxy.delivered(Direction.DOWN) == 0


def test_a_freeze_moves_nothing_and_a_thaw_loses_nothing(echo: Echo) -> None:
    with Proxy(echo.address) as proxy, connect(proxy) as client:
        proxy.wait_until(lambda p: p.open_connections == 1)
        proxy.freeze()
        client.sendall(b"patience")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        with connect(proxy) as late:
            late.sendall(b"new")
            late.settimeout(0.2)
            with pytest.raises(TimeoutError):
                late.recv(1)
            proxy.freeze(False)
            late.settimeout(10)
            assert read_exactly(late, 3) == b"new"
        client.settimeout(10)
        assert read_exactly(client, 8) == b"patience"


def test_refused_connections_fail_while_open_ones_go_on(echo: Echo) -> None:
    with Proxy(echo.address) as proxy, connect(proxy) as client:
        proxy.wait_until(lambda p: p.open_connections == 1)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        client.sendall(b"on")
        assert read_exactly(client, 2) == b"on"
        port = proxy.port
        proxy.accept()
        assert proxy.port == port
        with connect(proxy) as again:
            again.sendall(b"back")
            assert read_exactly(again, 4) == b"back"


def test_a_dead_server_looks_like_a_reset() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = probe.getsockname()
    # The reset may come before connect has returned, or after.
    with Proxy(nobody) as proxy, pytest.raises(ConnectionResetError), connect(proxy) as client:
        client.recv(1)


def test_stop_leaves_no_thread_and_no_port(echo: Echo) -> None:
    proxy = Proxy(echo.address).start()
    with connect(proxy) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        address = proxy.address
        proxy.stop()
        assert read_to_end(client) == (b"", "rst")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)
    assert "proxy" not in [thread.name for thread in threading.enumerate()]
