"""`fleet sandbox`, as a user runs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandbox.settings import DEMO_AGENT, DEMO_KEY

COMMAND = [sys.executable, "-m", "fleet", "sandbox"]
ROOT = Path(__file__).parents[3]
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOX_")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_cleanly(number: signal.Signals) -> None:
    """One line with the URL, answers there, also garbage; exit code 0 and a quiet stderr."""
    with subprocess.Popen(
        [*COMMAND, "--port", "0", "--events", "10", "--speed", "max"],
        cwd=ROOT, env=PLAIN, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            line = process.stdout.readline()
            assert line.startswith("sandbox listening on http://127.0.0.1:")
            with urllib.request.urlopen(f"{line.split()[-1]}/sandbox/summary") as answer:  # noqa: S310 - its own URL
                assert "emitted" in msgspec.json.decode(answer.read())
            address = line.split("//")[1].strip().split(":")
            with socket.create_connection((address[0], int(address[1]))) as garbage:
                garbage.sendall(b"GET /\xff\xfe HTTP/1.1\r\n\r\n")
                assert b" 400 " in garbage.recv(100)
            process.send_signal(number)
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["--trades", "missing.csv"], {}, "missing.csv cannot be read"),
        (["--speed", "fast"], {}, "speed is wrong: must be a number above 0, or max"),
        (["--speed", "0"], {}, "speed is wrong"),
        (["--events", "0"], {}, "events is wrong"),
        (["--faults", "errors=5"], {}, "needs a rate from 0 to 1"),
        (["--port", "70000"], {}, "port is wrong"),
        (["--agent-id", "a b"], {}, "agent-id is wrong: must be 1 to 128 letters"),
        (["--agent-id", ""], {}, "agent-id is wrong"),
        (["--host", "192.0.2.1"], {}, "cannot listen on 192.0.2.1"),
        ([], {"SANDBOX_KEY": "sk_live_secret"}, "key is wrong: must begin with pf_live_"),
        ([], {"SANDBOX_SCRIPT_EVERY": "-1"}, "script-every is wrong"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    arguments: list[str], environment: dict[str, str], told: str
) -> None:
    """Exit code 2, one line that says what is wrong, no traceback, no secret."""
    done = subprocess.run(
        [*COMMAND, "--port", "0", *arguments],
        cwd=ROOT, env={**PLAIN, **environment}, text=True, capture_output=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr


def test_help_names_the_agent_and_where_its_key_stands() -> None:
    """What a client needs to connect, without reading the source."""
    done = subprocess.run(
        [*COMMAND, "--help"], env=PLAIN, text=True, capture_output=True, timeout=120, check=True
    )
    said = " ".join(done.stdout.split())
    assert f"[default: {DEMO_AGENT}]" in said
    assert DEMO_KEY in said


def test_a_strict_tape_is_refused(write_tape: Any) -> None:
    """A bad line under --strict-tape is exit code 2 with file and line, before it listens."""
    path = write_tape(["1,A/B,1,1", "2,A/B,NaN,1"])
    done = subprocess.run(
        [*COMMAND, "--port", "0", "--strict-tape", "--trades", str(path)],
        cwd=ROOT, env=PLAIN, text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{path}:3: price is not a number" in done.stderr
