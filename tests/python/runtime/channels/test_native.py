# SPDX-License-Identifier: Apache-2.0
"""Channels shared with C: capsules in both directions, with a small C module (tests/python/native) at the other end.

Seeded bugs these tests were tried with: a capsule whose destructor closes nothing (its other side never ends), u64
read as signed, blobs that are not given back after a refused send (ASan build), a batch that converts its last element
twice."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import shutil
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest
from klaw_core import Err, Ok
from klaw_core.runtime import (
    ChannelClosed,
    ChannelClosedError,
    ChannelEmpty,
    ChannelEmptyError,
    ChannelFull,
    ChannelTypeErrorException,
    LimitExceededError,
    channel,
    from_capsule,
    native_channel,
    select,
)
from klaw_core.runtime.channels import NativeReceiver, NativeSender, Receiver, Sender

ELEMENTS = ["u64", "bytes"]
HOSTS = [pytest.param(True, id="fiber"), pytest.param(False, id="thread")]


def element(kind: str, n: int) -> Any:
    """As the C module makes them."""
    return n if kind == "u64" else bytes([n & 255]) * (n % 100)


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit, "it did not become true within 10 s"
        time.sleep(0.001)


@pytest.fixture(scope="module")
def native() -> Iterator[ModuleType]:
    import klaw_test_native  # noqa: PLC0415 - where it was not built, its tests fail and the others run

    klaw_test_native.start()
    yield klaw_test_native
    klaw_test_native.stop()


# --- C sends, Python receives ---
@pytest.mark.anyio
@pytest.mark.parametrize("fiber", HOSTS)
@pytest.mark.parametrize("kind", ELEMENTS)
@pytest.mark.parametrize("capacity", [-1, 1, 64], ids=["rendezvous", "1", "64"])
async def test_what_c_sends_arrives_in_order_and_then_closed(
    native: ModuleType, kind: str, fiber: bool, capacity: int
) -> None:
    n = 2000
    rx = from_capsule(native.generator(kind == "bytes", n, capacity, fiber))
    assert isinstance(rx, NativeReceiver) and isinstance(rx, Receiver)
    got = [item async for item in rx]
    assert got == [element(kind, i) for i in range(n)]
    assert await rx.try_recv() == Err(ChannelClosed())
    assert rx.capacity == max(capacity, 0) and rx.stats().backend_extras["name"] == "generator"


@pytest.mark.parametrize("fiber", HOSTS)
def test_a_thread_receives_from_c_and_closing_ends_the_sender(native: ModuleType, fiber: bool) -> None:
    rx = from_capsule(native.generator(True, 1 << 62, 4, fiber))
    for i in range(500):
        assert rx.recv_sync(timeout=10) == element("bytes", i)
    assert native.running() == 1
    rx.close_sync()
    wait_for(lambda: native.running() == 0)
    with pytest.raises(ChannelClosedError):
        rx.recv_sync()


def test_a_capsule_or_endpoint_that_is_dropped_closes_its_side(native: ModuleType) -> None:
    capsule = native.generator(False, 1 << 62, 4, True)
    del capsule
    wait_for(lambda: native.running() == 0)
    rx = from_capsule(native.generator(False, 1 << 62, 4, True))
    assert rx.recv_sync() == 0
    del rx
    gc.collect()
    wait_for(lambda: native.running() == 0)


# --- Python sends, C receives and sends back ---
@pytest.mark.anyio
@pytest.mark.parametrize("fiber", HOSTS)
@pytest.mark.parametrize("kind", ELEMENTS)
async def test_what_python_sends_through_c_comes_back(native: ModuleType, kind: str, fiber: bool) -> None:
    to_c, from_python = native_channel(kind, 8)  # type: ignore[call-overload]
    to_python, from_c = native_channel(kind, 8)  # type: ignore[call-overload]
    native.echo(kind == "bytes", from_python.capsule(), to_python.capsule(), fiber)
    await from_python.close()
    await to_python.close()
    items = [element(kind, i) for i in range(3000)]
    got = []

    async def send() -> None:
        async with to_c:
            for start in range(0, 1500, 5):
                await to_c.send_batch(items[start : start + 5])
            for item in items[1500:]:
                await to_c.send(item)

    async def receive() -> None:
        got.extend(await from_c.recv_batch(100))
        async for item in from_c:
            got.append(item)

    with anyio.fail_after(15):
        async with anyio.create_task_group() as group:
            group.start_soon(send)
            group.start_soon(receive)
    assert got == items
    wait_for(lambda: native.running() == 0)


def test_the_other_side_closing_is_seen_by_a_sender(native: ModuleType) -> None:
    to_c, from_python = native_channel("bytes", 1)
    to_python, from_c = native_channel("bytes", 1)
    native.echo(True, from_python.capsule(), to_python.capsule(), True)
    from_python.close_sync()
    from_c.close_sync()  # C's next send answers CLOSED, then it closes its receiver
    with pytest.raises(ChannelClosedError):
        for _ in range(100):
            to_c.send_sync(b"x", timeout=10)
    wait_for(lambda: native.running() == 0)


def test_cancelling_at_random_loses_and_doubles_nothing(native: ModuleType) -> None:
    """A fiber echoes, asyncio tasks are cancelled while they send and while they receive."""
    seed = int(os.environ.get("KLAW_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"seed {seed}")
    rng = random.Random(seed)

    async def main() -> None:
        to_c, from_python = native_channel("u64", 2)
        to_python, from_c = native_channel("u64", 2)
        native.echo(False, from_python.capsule(), to_python.capsule(), True)
        from_python.close_sync()
        to_python.close_sync()
        sent: list[int] = []
        got: list[int] = []

        async def send() -> None:
            for n in range(1500):
                while True:
                    task = asyncio.ensure_future(to_c.send(n))
                    for _ in range(rng.randrange(4)):
                        await asyncio.sleep(0)
                    if rng.random() < 0.5:
                        task.cancel()
                    try:
                        await task
                    except asyncio.CancelledError:
                        continue  # it was not sent
                    sent.append(n)
                    break
            to_c.close_sync()

        async def receive() -> None:
            while True:
                task = asyncio.ensure_future(from_c.recv())
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
                if rng.random() < 0.5:
                    task.cancel()
                try:
                    got.append(await task)
                except asyncio.CancelledError:
                    continue
                except ChannelClosedError:
                    break

        await asyncio.wait_for(asyncio.gather(send(), receive()), 15)
        assert got == sent == list(range(1500))

    asyncio.run(main())


def test_threads_of_python_and_fibers_of_c_share_a_channel(native: ModuleType) -> None:
    to_c, from_python = native_channel("u64", 3)
    to_python, from_c = native_channel("u64", 3)
    for fiber in (True, False, True):
        native.echo(False, from_python.capsule(), to_python.capsule(), fiber)
    from_python.close_sync()
    to_python.close_sync()
    got: list[int] = []

    def send(first: int) -> None:
        with to_c.clone() as tx:
            for i in range(first, first + 500):
                tx.send_sync(i)

    def receive() -> None:
        with from_c.clone() as rx:
            got.extend(rx)

    threads = [threading.Thread(target=send, args=(i * 500,)) for i in range(3)]
    threads += [threading.Thread(target=receive) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: to_c.stats().sender_count == 4 or to_c.stats().total_sent > 0)
    to_c.close_sync()
    for thread in threads:
        thread.join(15)
    assert sorted(got) == list(range(1500))


# --- in Python alone ---
@pytest.mark.parametrize(
    ("kind", "good"), [("u64", [0, 1, 2**63, 2**64 - 1, True]), ("bytes", [b"", b"\0x", b"y" * 70000])]
)
def test_values_come_out_as_they_went_in(kind: Any, good: list[Any]) -> None:
    tx, rx = native_channel(kind, 8)
    assert isinstance(tx, NativeSender) and isinstance(tx, Sender)
    for value in good:
        tx.send_sync(value)
        assert rx.recv_sync() == value
    assert tx.try_send_sync(good[0]) == Ok(None) and rx.try_recv_sync() == Ok(good[0])
    assert rx.try_recv_sync() == Err(ChannelEmpty())


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("kind", "bad", "error"),
    [
        ("u64", "1", ChannelTypeErrorException),
        ("u64", 1.0, ChannelTypeErrorException),
        ("u64", -1, OverflowError),
        ("u64", 2**64, OverflowError),
        ("bytes", "text", ChannelTypeErrorException),
        ("bytes", bytearray(b"x"), ChannelTypeErrorException),
        ("bytes", None, ChannelTypeErrorException),
    ],
)
async def test_values_of_another_type_are_refused_before_the_send(kind: Any, bad: Any, error: type[Exception]) -> None:
    tx, rx = native_channel(kind, 2)
    good = element(kind, 5)
    with pytest.raises(error):
        await tx.send(bad)
    with pytest.raises(error):
        await tx.try_send(bad)
    with pytest.raises(error):
        await tx.send_batch([good, bad])
    with pytest.raises(error):
        tx.send_sync(bad)
    assert await rx.try_recv() == Err(ChannelEmpty())


@pytest.mark.anyio
async def test_what_can_not_be_sent_is_given_back() -> None:
    tx, rx = native_channel("bytes", 1)
    await tx.send(b"a" * 1000)
    assert await tx.try_send(b"b" * 1000) == Err(ChannelFull(1))
    with pytest.raises(LimitExceededError):
        await tx.send_batch([b"c" * 1000] * 2)
    await rx.close()
    with pytest.raises(ChannelClosedError):
        await tx.send(b"d" * 1000)
    with pytest.raises(ChannelClosedError):
        await tx.send_batch([b"e" * 1000])


@pytest.mark.anyio
async def test_select_over_both_worlds() -> None:
    tx, rx = native_channel("bytes", 1)
    other, objects = await channel(1)
    await tx.send(b"x")
    assert await select(objects, rx) == (rx, b"x")
    await other.send({"any": "thing"})
    assert await select(objects, rx) == (objects, {"any": "thing"})
    with pytest.raises(ChannelEmptyError):
        await select(rx, objects, timeout=0.001)


def test_a_wrong_element_or_capacity_is_refused() -> None:
    with pytest.raises(ValueError, match="'u64' or 'bytes'"):
        native_channel("i32")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="capacity"):
        native_channel("u64", -1)
    with pytest.raises(LimitExceededError):
        native_channel("u64", 1 << 50)
    tx, rx = native_channel("u64", unbounded=True, name="mine")
    assert tx.capacity is None and "mine" in repr(rx)
    with pytest.raises(TypeError):
        NativeSender()


# --- capsules ---
def test_a_capsule_is_used_once() -> None:
    tx, rx = native_channel("u64", 4)
    capsule = tx.capsule()
    again = from_capsule(capsule)
    assert again.stats().sender_count == 2
    for _ in range(2):
        with pytest.raises(TypeError, match=r"'klaw.receiver.bytes', not 'klaw.taken'"):
            from_capsule(capsule)
    assert isinstance(again, NativeSender)
    again.send_sync(1)
    del again, capsule
    gc.collect()
    assert tx.stats().sender_count == 1 and rx.recv_sync() == 1


def test_capsules_of_something_else_are_refused(native: ModuleType) -> None:
    tx, rx = native_channel("u64", 4)
    for wrong in (None, object(), 1, tx):
        with pytest.raises(TypeError, match="wanted a capsule"):
            from_capsule(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="another libklaw"):
        from_capsule(native.foreign())
    # C asks for a type and a side, and leaves a wrong one as it is.
    right = rx.capsule()
    with pytest.raises(TypeError, match=r"'klaw.receiver.bytes', not 'klaw.receiver.u64'"):
        native.echo(True, right, tx.capsule(), True)
    with pytest.raises(TypeError, match=r"'klaw.sender.u64', not 'klaw.receiver.u64'"):
        native.echo(False, rx.capsule(), right, True)
    assert isinstance(from_capsule(right), NativeReceiver)


def test_every_kind_of_channel_but_one_to_one(native: ModuleType) -> None:
    for kind in ("oneshot", "broadcast", "watch"):
        rx = from_capsule(native.other(kind))
        assert isinstance(rx, NativeReceiver)
        assert rx.recv_sync(timeout=10) == 7
        with pytest.raises(ChannelClosedError):
            rx.recv_sync(timeout=10)
    with pytest.raises(TypeError, match="can't be cloned"):
        from_capsule(native.other("oneshot")).capsule()
    with pytest.raises(TypeError, match=r"one_to_one"):
        native.other("one_to_one")
    with pytest.raises(TypeError, match=r"not mpmc of"):
        native.other("pointers")


def test_there_is_one_libklaw_in_the_process(native: ModuleType) -> None:
    libraries = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libklaw" in line}
    assert len(libraries) == 1


@pytest.mark.parametrize("language", [("cc", "c", "c11"), ("c++", "c++", "c++17")], ids=["c11", "c++17"])
def test_the_header_compiles_after_python_h(language: tuple[str, str, str]) -> None:
    compiler, name, standard = language
    if not shutil.which(compiler):
        pytest.skip(f"there is no {compiler} here")
    include = Path(__file__).parents[4] / "include"
    subprocess.run(
        [
            *(compiler, "-x", name, f"-std={standard}", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror"),
            *("-isystem", sysconfig.get_paths()["include"], f"-I{include}", "-"),
        ],
        input="#include <Python.h>\n#include <klaw/python.h>\n"
        "PyObject *f(klaw_sender *tx) { return klaw_python_from_sender(tx); }\n",
        text=True,
        check=True,
        timeout=60,
    )
