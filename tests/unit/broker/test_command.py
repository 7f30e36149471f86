"""`fleet broker` on what a person may get wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest

SECRET = "s3cr3t-w0rd"  # noqa: S105 - what must never be shown


def fleet_broker(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command with these settings and no others."""
    argv = [sys.executable, "-m", "fleet", "broker", *words]
    env = {"PATH": "/usr/bin:/bin", **settings}
    return subprocess.run(argv, capture_output=True, text=True, env=env, check=False, timeout=120)


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ([], {"AMQP_URL": f"amqp://me:{SECRET}@127.0.0.1:1/"}),
        ([], {"AMQP_URL": f"http://me:{SECRET}@127.0.0.1/"}),
        ([], {"AMQP_URL": f"amqp://me:{SECRET}@127.0.0.1:99999/"}),
        ([], {"AMQP_URL": f"amqp://me:{SECRET}@nobody.invalid/"}),
        (["--kind", "docker", "--data", "folder"], {}),
        (["--kind", "local", "--data", "/dev/null/folder"], {}),
        ([], {"FLEET_BROKER": "elsewhere"}),
        ([], {"FLEET_BROKER_START_TIMEOUT": "soon"}),
    ],
)
def test_a_wrong_setting_is_one_sentence(words: list[str], settings: dict[str, str]):
    """Exit code 2, one line that says what to do, no traceback, no secret, an empty output."""
    done = fleet_broker(*words, **settings)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert SECRET not in done.stderr
