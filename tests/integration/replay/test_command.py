"""`replay-failed` as a person meets it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from contextlib import suppress
from typing import Any

from fleet.amqp.removal import remove


async def test_ctrl_c_leaves_the_rest_where_it_was(shop: Any, wait: Any):
    """Interrupted between two messages: exit code 130, none lost, the next run does the rest."""
    await shop.park([shop.event("wallet.low_balance") for _ in range(50)])
    process = shop.start("run", "--rate", "2", "--yes", "--json")
    await wait(lambda: shop.depth(shop.work))
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 130, (out, err)

    async def all_there() -> bool:
        return await shop.depth(shop.queue) + await shop.depth(shop.work) == 50

    await wait(all_there)
    sent = await shop.depth(shop.work)
    assert 0 < sent < 50
    assert (await shop.cli("run", "--yes", "--json"))["sent"] == 50 - sent


def asked(process: subprocess.Popen[str]) -> str:
    """What is said on standard error up to the question, once it is asked."""
    said = ""
    assert process.stderr is not None
    while "[y/N]" not in said:
        sign = process.stderr.read(1)
        assert sign, said
        said += sign
    return said


def interrupted(process: subprocess.Popen[str]) -> int:
    """Press Ctrl-C until it ends; its exit code.

    Not once: Python can miss a signal that comes as it begins to read. And not by `communicate`,
    which would close standard input: that is an answer too.
    """
    for _ in range(12):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(10)
    raise AssertionError("it does not end")


async def test_ctrl_c_at_the_question_is_no(shop: Any):
    """The command ends at once, and the message waits where it was."""
    await shop.park([shop.event("wallet.low_balance")])
    process = shop.start("run", stdin=subprocess.PIPE)
    await asyncio.to_thread(asked, process)
    try:
        assert await asyncio.to_thread(interrupted, process) == 1
    finally:
        process.kill()
        _, err = process.communicate()
    assert "Traceback" not in err
    await shop.counted(shop.queue, 1)


async def test_without_yes_nothing_is_sent(shop: Any):
    """It shows what it would do and asks; nobody answers, nothing happens."""
    await shop.park([shop.event("wallet.low_balance")])
    await shop.cli("run", code=1)
    dry = await shop.cli("run", "--dry-run", "--json")
    assert [item["outcome"] for item in dry["items"]] == ["run"]
    assert (await shop.cli("resolve", "--note", "x", "--dry-run", "--json"))["would_resolve"] == 1
    await shop.counted(shop.queue, 1)


async def test_what_is_wrong_is_one_sentence(shop: Any):
    """Exit code 2 and what to do, with no traceback and no password."""
    (shop.folder / "no.json").write_text("{}")
    for arguments in (
        ("run", "no.json", "--yes"),
        ("run", "none.json", "--yes"),
        ("list", "--since", "yesterday"),
        ("import", "none.jsonl"),
    ):
        said = await shop.cli(*arguments, code=2)
        assert said.startswith("replay-failed: ")
        assert said.count("\n") == 1
    said = await shop.cli("list", code=2, AMQP_URL="amqp://me:secret@127.0.0.1:1/")
    assert "secret" not in said
    assert "Traceback" not in said


async def test_a_person_can_read_it(shop: Any):
    """Tables, a message and a summary name what matters, and steer no terminal."""
    (name,) = await shop.park([shop.event("wallet.low_balance", {"text": "\x1b[2Jgone"})])
    for arguments in (("list",), ("list", "--each"), ("show", name), ("run", "--dry-run")):
        said = await shop.cli(*arguments)
        assert "\x1b[2J" not in said
        assert name in said or "1 selected" in said
    missing = await shop.cli("show", "nothing", code=1)
    assert "does not wait" in missing


async def test_the_backlog_is_told_without_a_look(shop: Any):
    """Depth and age, and exit code 1 above ten."""
    await shop.park([shop.event("wallet.low_balance") for _ in range(11)])
    said = await shop.cli("backlog", "--json", code=1)
    assert (said["depth"], said["service"]) == (11, shop.service.name)
    assert (await shop.cli("backlog", "--warn-above", "11", "--json"))["depth"] == 11
    await remove(shop.url, [], [shop.queue])
    assert "There is no queue" in await shop.cli("backlog", code=2)


async def test_nothing_is_a_sentence(shop: Any):
    """An empty queue is no empty table."""
    assert "Nothing waits" in await shop.cli("list")
    await shop.park([shop.event("wallet.low_balance")])
    assert "none of them is selected" in await shop.cli("list", "--type", "order.*")


async def test_nothing_to_send_is_json_too(shop: Any):
    """A script reads an object whatever there is: what is not sent stands in it with the reason."""
    assert (await shop.cli("run", "--yes", "--json"))["sent"] == 0
    (name,) = await shop.park([shop.event("nobody.asked")])
    process = shop.start("run", "--yes", "--json")
    out, _ = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 1
    assert list(json.loads(out)["refused"]) == [name]
