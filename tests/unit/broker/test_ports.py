"""Ports for servers that have yet to start."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fleet.broker import ports

CHILD = """
import random, sys
from itertools import count
numbers = count(int(sys.argv[1]))
random.randint = lambda *_: next(numbers)
from fleet.broker.ports import free
print(free(1)[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is claimed")
def test_a_port_is_given_to_one_process_only():
    """Before a server listens there, another process that draws the same one gets another."""
    (mine,) = ports.free(1)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(mine)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > mine
