"""Finds RabbitMQ on this machine, and installs it where it is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from fleet.core.errors import BrokerError

# Debian's command on the PATH insists on the system's user and folders: the script behind it is
# what can be started anywhere. Homebrew's are of that kind already.
SCRIPTS = (
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server",
    "/usr/local/opt/rabbitmq/sbin/rabbitmq-server",
)
# Where these live when the PATH is a service's or a bare shell's.
FOLDERS = "/opt/homebrew/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
APT = """\
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\\nexit 101\\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q -y --no-install-recommends install rabbitmq-server
if command -v systemctl >/dev/null; then systemctl -q disable rabbitmq-server || true; fi
"""
MISSING = (
    "There is no RabbitMQ here: set AMQP_URL to a running one, start Docker, "
    "or install rabbitmq-server"
)


def find() -> Path | None:
    """The script that starts a RabbitMQ server as any user, if there is one."""
    places = (*map(Path, SCRIPTS), _which("rabbitmq-server"))
    return next((place for place in places if place and os.access(place, os.X_OK)), None)


def find_erlang() -> tuple[Path, Path]:
    """Erlang's folder of commands and its port mapper; raises BrokerError where one is missing."""
    erl, epmd = _which("erl"), _which("epmd")
    if erl and not epmd:
        epmd = next(iter(sorted(erl.resolve().parent.parent.glob("**/bin/epmd"))), None)
    if not erl or not epmd:
        raise BrokerError("Erlang's erl and epmd cannot be found: install Erlang again.")
    return erl.parent, epmd


def _which(name: str) -> Path | None:
    found = shutil.which(name) or shutil.which(name, path=FOLDERS)
    return Path(found) if found else None


def ensure(say: Callable[[str], None]) -> Path:
    """The script of `find`, after installing RabbitMQ if need be.

    Says what it is going to do before it does it. Raises BrokerError where it cannot be done.
    """
    found = find()
    if found:
        return found
    note, command = _plan()
    say(note)
    # Its output is news, not an answer: standard output stays clean.
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=2)  # noqa: S603
    if done.returncode:
        raise BrokerError(f"{MISSING} (installing it here failed).")
    found = find()
    if found is None:
        raise BrokerError(f"{MISSING} (it was installed, but its server cannot be found).")
    return found


def _plan() -> tuple[str, list[str]]:
    """What to say and what to run."""
    if shutil.which("apt-get"):
        root = os.geteuid() == 0
        if not root and not shutil.which("sudo"):
            raise BrokerError(f"{MISSING} (as root: apt-get install rabbitmq-server).")
        note = (
            "No RabbitMQ here: installing rabbitmq-server with apt-get"
            f"{'' if root else ' (through sudo)'}; its system service is kept from starting."
        )
        return note, [*([] if root else ["sudo"]), "sh", "-c", APT]
    brew = shutil.which("brew")
    if brew:
        return "No RabbitMQ here: installing it with brew.", [brew, "install", "rabbitmq"]
    raise BrokerError(f"{MISSING} (neither apt-get nor brew is here to do it).")
