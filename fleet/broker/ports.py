"""Free ports on 127.0.0.1."""

from __future__ import annotations

import random
import socket
import sys

# Below what Linux and macOS hand out to clients: a client that reconnects to a dead server's port
# from that range can be given the same port and talk to itself.
FIRST, LAST = 20000, 32767


def free(count: int) -> list[int]:
    """`count` different ports between 20000 and 32767 that nobody listens on now.

    On Linux no other process is given one of them by this function while this one lives: it may be
    seconds before a server listens there, and one that was killed is to come back.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randint(FIRST, LAST)  # noqa: S311 - no secret, only spread
        if port not in found and is_free(port) and _claim(port):
            found.append(port)
    return found


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _claim(port: int) -> bool:
    """Whether no process claimed it yet; from now on, and until its end, this one does."""
    if sys.platform != "linux":  # where names of sockets leave files behind
        return True
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0flea-fleet-port-{port}")
    except OSError:
        claim.close()
        return False
    claim.detach()  # open for as long as the process is
    return True
