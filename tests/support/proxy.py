"""A TCP proxy on loopback that stands for a link between a client and a server: as slow and as bad as it is told.

It counts the bytes each way and the connections, limits the rate (of all connections together), cuts connections,
swallows answers, so that requests that arrived are sent again, and holds connections back, so that others overtake.

`python proxy.py PORT BYTES_A_SECOND` runs one in a process of its own; it prints its port, and ends with its input.
"""

import socket
import sys
import threading
import time
from contextlib import suppress

PIECE = 16 << 10


class Pace:
    """Lets so many bytes a second pass; None: as many as come."""

    def __init__(self, rate=None):
        self.rate = rate
        self.bytes = 0
        self._free = 0.0
        self._lock = threading.Lock()

    def wait(self, size):
        with self._lock:
            self.bytes += size
            if not self.rate:
                return
            self._free = max(self._free, time.monotonic() - 0.002) + size / self.rate
            until = self._free
        while (left := until - time.monotonic()) > 0:
            time.sleep(left)


class Proxy:
    """Use as a context; `url` takes the place of the server's.

    Parameters
    ----------
    port : int
        Where the server listens, on loopback.
    rate : float, optional
        Bytes a second, each way.
    """

    def __init__(self, port, rate=None):
        self.port = port
        self.up, self.down = Pace(rate), Pace(rate)
        self.requests = 0
        self.connections = 0
        self.refuse = 0
        self.cut_up = self.cut_down = None
        self.cuts = 0
        self.swallow = 0
        self.hold = lambda number: 0.0
        self._open = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def url(self):
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in list(self._open):
            _close(one)
        for thread in self._threads:
            thread.join()

    def reset(self):
        """Begin to count anew."""
        self.up.bytes = self.down.bytes = self.requests = 0

    def cut(self, up=None, down=None, times=1, then_refuse=0):
        """Cut the connection after so many more bytes in that direction, and after as many again, some times.

        After a cut, so many connections are refused.
        """
        self.then_refuse = then_refuse
        self.cut_up, self.cut_down, self.cuts = up and up + self.up.bytes, down and down + self.down.bytes, times
        self._every = up or down

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.refuse:
                self.refuse -= 1
                _close(client)
                continue
            server = socket.create_connection(("127.0.0.1", self.port))
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * PIECE)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * PIECE)
            self._open |= {client, server}
            number = self.connections
            for work in (self._carry_up, self._carry_down):
                thread = threading.Thread(target=work, args=(client, server, number), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _carry_up(self, client, server, number):
        first = True
        while data := _receive(client):
            if first:
                time.sleep(self.hold(number))
                first = False
            self.requests += sum(data.count(verb + b" /api") for verb in (b"GET", b"POST", b"PUT", b"PATCH", b"DELETE"))
            if not self._pass(data, self.up, server, "cut_up"):
                break
        self._end(client, server)

    def _carry_down(self, client, server, _number):
        while data := _receive(server):
            with self._lock:
                swallowed = self.swallow > 0
                self.swallow -= swallowed
            if swallowed or not self._pass(data, self.down, client, "cut_down"):
                break
        self._end(client, server)

    def _pass(self, data, pace, target, cut):
        pace.wait(len(data))
        with self._lock:
            at = getattr(self, cut)
            if at is not None and self.cuts and pace.bytes >= at:
                self.cuts -= 1
                self.refuse = max(self.refuse, self.then_refuse)
                setattr(self, cut, pace.bytes + self._every)
                return False
        try:
            target.sendall(data)
        except OSError:
            return False
        return True

    def _end(self, *sockets):
        for one in sockets:
            _close(one)
            self._open.discard(one)


def _receive(one):
    try:
        return one.recv(PIECE)
    except OSError:
        return b""


def _close(one):
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


if __name__ == "__main__":
    with Proxy(int(sys.argv[1]), float(sys.argv[2]) or None) as proxy:
        print(proxy.url.rpartition(":")[2], flush=True)
        sys.stdin.read()
