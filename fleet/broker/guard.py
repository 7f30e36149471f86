"""Ends what it started when its owner is gone, however the owner went.

Run as a file, on the standard library alone, with one JSON argument:

- `run`: commands started at once, in order; their process ids are printed as one JSON line.
- `last`: commands run at the very end.
- `remove`: a folder removed at the end, unless the owner wrote `keep` before it closed the pipe.

The owner holds the other end of standard input. The kernel closes it even on kill -9, and that is
why this is a pipe and not a signal handler.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from queue import SimpleQueue
from typing import Any

CHILD = b"child"
KEEP = b"keep"
GRACE = 20.0  # seconds between the polite and the certain end of a command
HURRIED = 2.0  # the same where its data is removed: clients know at once, the rest is flushing


def main() -> None:
    """Start the commands, wait for the owner's end or the last command's, and end the rest."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    news: SimpleQueue[bytes] = SimpleQueue()
    # SIG_IGN would be inherited by the commands; a handler is not.
    signal.signal(signal.SIGTERM, lambda *_: news.put(b""))
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    children: list[subprocess.Popen[bytes]] = []
    message = KEEP
    try:
        children.extend(map(start, order["run"]))
        sys.stdout.write(json.dumps([child.pid for child in children]) + "\n")
        sys.stdout.flush()
        watch(news, children)
        message = news.get()
    finally:
        remove = order["remove"] and message not in (CHILD, KEEP)
        end(children, HURRIED if remove else GRACE)
        for argv in order["last"]:
            start(argv).wait()
    if remove:
        shutil.rmtree(order["remove"], ignore_errors=True)


def start(argv: list[str]) -> subprocess.Popen[bytes]:
    """Start a command that has no input and writes where the guard's errors go."""
    return subprocess.Popen(  # noqa: S603 - its owner wrote them
        argv, stdin=subprocess.DEVNULL, stdout=sys.stderr
    )


def watch(news: SimpleQueue[bytes], children: list[subprocess.Popen[bytes]]) -> None:
    """Put what the owner wrote into `news` once it is gone, or `CHILD` once the last command is."""

    def owner() -> None:
        # Not sys.stdin: a thread that still waits in there aborts the interpreter at its end.
        said = b""
        while piece := os.read(0, 64):
            said += piece
        news.put(said)

    def child() -> None:
        children[-1].wait()
        news.put(CHILD)

    for target in (owner, child) if children else (owner,):
        threading.Thread(target=target, daemon=True).start()


def end(children: list[subprocess.Popen[bytes]], grace: float) -> None:
    """End the commands, the youngest first: politely, and after `grace` seconds for certain."""
    for child in reversed(children):
        child.terminate()
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


if __name__ == "__main__":
    main()
