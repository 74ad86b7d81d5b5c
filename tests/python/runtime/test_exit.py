# SPDX-License-Identifier: Apache-2.0
"""How a process ends that uses klaw: with parked waiters, by Ctrl-C, after a fork, with further interpreters.

Each test runs a child with a time limit and looks at how it ended: no crash, no hang, nothing unexpected on stderr.
Seeded bugs it was tried with: the operation of a waiting thread on its stack (a daemon thread that is ended by
the interpreter leaves a dangling pointer in the queue), PyGILState_Ensure around the drop of a queued object (hangs in
a further interpreter of 3.11)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

LIMIT = 45  # seconds

PRELUDE = """
import asyncio, gc, os, signal, sys, threading, time
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in jobs that a shell runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
from klaw_core._klaw import broadcast, channel, oneshot, select, watch
from klaw_core.runtime.errors import *

def until_waiting(end, senders=0, receivers=0):
    limit = time.monotonic() + 20
    while True:
        extras = end.stats().backend_extras
        if extras["waiting_senders"] >= senders and extras["waiting_receivers"] >= receivers:
            return
        assert time.monotonic() < limit
        time.sleep(0.0005)

def ready_when(end, **waiting):
    def tell():
        until_waiting(end, **waiting)
        os.write(1, b"ready\\n")  # print would still hold stdout's lock when the parent is at it
    threading.Thread(target=tell, daemon=True).start()
"""


def child(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", PRELUDE + textwrap.dedent(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A thread that the interpreter ends leaves its frames behind: a leak to a sanitizer, and CPython's own.
        env=os.environ | {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"},
    )


def end(process: subprocess.Popen[str], code: int = 0, stderr: str = "") -> str:
    """Its output, once it has ended with this code."""
    try:
        out, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        out, errors = process.communicate()
        pytest.fail(f"it did not end within {LIMIT} s\n{out}\n{errors}")
    assert process.returncode == code, f"ended with {process.returncode}\n{out}\n{errors}"
    assert errors.strip().endswith(stderr) if stderr else not errors.strip(), errors
    return out


# --- the end of the interpreter ---
EXITS = {
    "an asyncio loop that is never closed": """
        loop = asyncio.new_event_loop()
        tx, rx = channel(0)
        tasks = [loop.create_task(op) for op in (rx.recv(), rx.recv(timeout=60), select(rx), rx.recv_batch(3))]
        loop.run_until_complete(asyncio.sleep(0))
        until_waiting(rx, receivers=4)
        loop.set_exception_handler(lambda *_: None)  # asyncio's own complaint about pending tasks
        sys.exit(3)
    """,
    "asyncio.run that leaves tasks behind": """
        tx, rx = channel(1)
        async def main():
            global tasks
            tx.send_sync(0)
            tasks = [asyncio.ensure_future(op) for op in (tx.send([]), tx.send_batch([[]]))]
            await asyncio.sleep(0)
            until_waiting(tx, senders=2)
        asyncio.run(main())
        assert all(task.cancelled() for task in tasks)
        sys.exit(3)
    """,
    "an exception out of trio with parked tasks": """
        import trio
        tx, rx = channel(0)
        async def main():
            async with trio.open_nursery() as nursery:
                for op in (rx.recv, rx.recv, lambda: rx.recv(60)):
                    nursery.start_soon(op)
                await trio.testing.wait_all_tasks_blocked()
                until_waiting(rx, receivers=3)
                sys.exit(3)
        import trio.testing
        try:
            trio.run(main)
        except* SystemExit:
            assert rx.stats().backend_extras["waiting_receivers"] == 0
            sys.exit(3)
    """,
    "daemon threads parked in recv_sync and send_sync": """
        tx, rx = channel(0)
        full, other = channel(1)
        full.send_sync(0)
        for _ in range(3):
            threading.Thread(target=rx.recv_sync, daemon=True).start()
            threading.Thread(target=full.send_sync, args=([],), daemon=True).start()
        until_waiting(rx, receivers=3)
        until_waiting(full, senders=3)
        sys.exit(3)
    """,
    "daemon threads that come and go while it ends": """
        class Late:  # closes the senders when the threads are gone
            def __init__(self, *ends): self.ends = ends
            def __del__(self):
                time.sleep(0.02)
                for end in self.ends: end.close_sync()
        tx, rx = channel(0)
        full, other = channel(1)
        full.send_sync(0)
        def receive():
            while True:
                try: rx.recv_sync(timeout=0.002)
                except ChannelEmptyError: pass
        def send():
            while True:
                try: full.send_sync([], timeout=0.002)
                except ChannelFullError: pass
        for _ in range(4):
            threading.Thread(target=receive, daemon=True).start()
            threading.Thread(target=send, daemon=True).start()
        until_waiting(rx, receivers=4)
        until_waiting(full, senders=4)
        sys.late = Late(tx, other)
        del tx, other
        sys.exit(3)
    """,
    "a loop that runs in a daemon thread": """
        tx, rx = channel(0)
        def run():
            async def main():
                await asyncio.gather(*(rx.recv() for _ in range(5)))
            asyncio.run(main())
        threading.Thread(target=run, daemon=True).start()
        until_waiting(rx, receivers=5)
        sys.exit(3)
    """,
    "actors, tasks and a supervisor left running": """
        from klaw_core.runtime import Executor, Supervisor, spawn_actor
        class Echo:
            async def handle(self, msg): return msg
        async def main():
            ref = await spawn_actor(Echo, name="echo")
            assert (await ref.ask(1)).unwrap() == 1
            ex = await Executor(concurrency=2).__aenter__()
            ex.submit(asyncio.sleep, 60)
            await asyncio.sleep(0)
        asyncio.run(main())
        sys.exit(3)
    """,
    "process workers alive": """
        from klaw_core.runtime import Executor
        if __name__ == "__main__":
            async def main():
                ex = await Executor(workers="processes", concurrency=2).__aenter__()
                pids = [(await ex.submit(os.getpid)).unwrap() for _ in range(2)]
                print(*pids, flush=True)
            asyncio.run(main())
            sys.exit(3)
    """,
    "os._exit with a thread parked": """
        tx, rx = channel(0)
        threading.Thread(target=rx.recv_sync).start()
        until_waiting(rx, receivers=1)
        os._exit(3)
    """,
    "an operation kept in a global": """
        tx, rx = channel(0)
        loop = asyncio.new_event_loop()
        async def park():
            global op
            op = rx.recv()
            op.send(None)
        loop.run_until_complete(park())
        until_waiting(rx, receivers=1)
        loop.close()
        sys.exit(3)
    """,
    "everything in a cycle with the module": """
        tx, rx = channel(4)
        sys.modules["klaw_core._klaw"].kept = [tx, rx]
        tx.send_sync([tx, rx, sys.modules])
        tx.send_sync(lambda: rx)
        sys.exit(3)
    """,
}


@pytest.mark.parametrize("script", EXITS.values(), ids=EXITS)
def test_the_interpreter_ends_with(script: str) -> None:
    out = end(child(script), 3)
    for pid in out.split():  # its worker processes are gone too
        limit = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
            assert time.monotonic() < limit, f"the worker {pid} lives on"
            time.sleep(0.005)


# --- Ctrl-C ---
INTERRUPTED = {
    "recv_sync": """
        tx, rx = channel(4)
        ready_when(rx, receivers=1)
        try:
            rx.recv_sync()
        except KeyboardInterrupt:
            until_waiting(rx)
            assert rx.stats().backend_extras["waiting_receivers"] == 0
            tx.send_sync("x")
            assert rx.recv_sync() == "x"
            sys.exit(7)
    """,
    "send_sync": """
        tx, rx = channel(1)
        tx.send_sync(1)
        ready_when(tx, senders=1)
        try:
            tx.send_sync(2, timeout=60)
        except KeyboardInterrupt:
            assert rx.recv_sync() == 1 and rx.try_recv_sync().is_err()
            sys.exit(7)
    """,
    "a for loop over a receiver": """
        tx, rx = channel(4)
        tx.send_sync(1)
        ready_when(rx, receivers=1)
        got = []
        try:
            for item in rx:
                got.append(item)
        except KeyboardInterrupt:
            assert got == [1]
            sys.exit(7)
    """,
    "asyncio.run with parked receivers": """
        tx, rx = channel(0)
        async def main():
            await asyncio.gather(*(rx.recv() for _ in range(3)), rx.recv_batch(2), select(rx))
        ready_when(rx, receivers=5)
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            assert rx.stats().backend_extras["waiting_receivers"] == 0
            sys.exit(7)
    """,
    "trio with parked receivers": """
        import trio
        tx, rx = channel(0)
        async def main():
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(rx.recv)
                await rx.recv()
        ready_when(rx, receivers=4)
        try:
            trio.run(main)
        except* KeyboardInterrupt:
            assert rx.stats().backend_extras["waiting_receivers"] == 0
            sys.exit(7)
    """,
    "uvloop with parked receivers": """
        import uvloop
        tx, rx = channel(0)
        async def main():
            await asyncio.gather(*(rx.recv() for _ in range(3)))
        ready_when(rx, receivers=3)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(main())
        except KeyboardInterrupt:
            assert rx.stats().backend_extras["waiting_receivers"] == 0
            sys.exit(7)
    """,
    "a handler that sends to the very channel": """
        tx, rx = channel(4)
        signal.signal(signal.SIGINT, lambda *_: tx.send_sync("from the handler"))
        ready_when(rx, receivers=1)
        sys.exit(7 if rx.recv_sync() == "from the handler" else 1)
    """,
    "a handler that closes the very channel": """
        tx, rx = channel(4)
        signal.signal(signal.SIGINT, lambda *_: tx.close_sync())
        ready_when(rx, receivers=1)
        try:
            rx.recv_sync()
        except ChannelClosedError:
            sys.exit(7)
    """,
}


@pytest.mark.parametrize("script", INTERRUPTED.values(), ids=INTERRUPTED)
def test_ctrl_c_interrupts(script: str) -> None:
    process = child(script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()
    process.send_signal(signal.SIGINT)
    end(process, 7)


def test_ctrl_c_that_nobody_catches_ends_the_process_as_a_signal_does() -> None:
    process = child("tx, rx = channel(0)\nready_when(rx, receivers=1)\nrx.recv_sync()")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    end(process, -signal.SIGINT, "KeyboardInterrupt")


def test_other_signals_do_not_end_a_wait() -> None:
    process = child(
        """
        tx, rx = channel(0)
        seen = []
        signal.signal(signal.SIGUSR1, lambda *_: (seen.append(1), os.write(1, b"seen\\n")))
        ready_when(rx, receivers=1)
        def send():
            while len(seen) < 3:
                time.sleep(0.001)
            tx.send_sync(5)
        threading.Thread(target=send, daemon=True).start()
        assert rx.recv_sync(timeout=25) == 5 and len(seen) == 3
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for _ in range(3):
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "seen\n"
    end(process)


# --- forks ---
FORKS = {
    "a child that ends as Python ends": """
        tx, rx = channel(4)
        tx.send_sync([tx])
        async def use():
            a, b = channel(1)
            await a.send(1)
            return await b.recv()
        assert asyncio.run(use()) == 1
        pid = os.fork()
        if pid == 0:
            for attempt in (lambda: channel(1), lambda: tx.send_sync(1), lambda: asyncio.run(use())):
                try: attempt()
                except RuntimeError as error: assert "fork" in str(error), error
                else: os._exit(99)
            del rx, tx
            gc.collect()
            sys.exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
        assert asyncio.run(use()) == 1
    """,
    "a child while threads wait": """
        tx, rx = channel(0)
        got = []
        thread = threading.Thread(target=lambda: got.append(rx.recv_sync()))
        thread.start()
        until_waiting(rx, receivers=1)
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                try: rx.recv_sync(timeout=1)
                except RuntimeError as error: os._exit(4 if "fork" in str(error) else 5)
                os._exit(6)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
        tx.send_sync(5)
        thread.join()
        assert got == [5]
    """,
    "subprocess beside parked waiters": """
        import subprocess
        tx, rx = channel(0)
        async def main():
            task = asyncio.ensure_future(rx.recv())
            await asyncio.sleep(0)
            for _ in range(3):
                subprocess.run([sys.executable, "-Sc", ""], check=True)
                process = await asyncio.create_subprocess_exec("true")
                assert await process.wait() == 0
            await tx.send(3)
            assert await task == 3
        asyncio.run(main())
    """,
}


@pytest.mark.parametrize("script", FORKS.values(), ids=FORKS)
def test_after_a_fork(script: str) -> None:
    end(child("import warnings\nwarnings.simplefilter('ignore')\n" + textwrap.dedent(script)))


PROCESSES = """
import multiprocessing, sys, warnings
from klaw_core._klaw import channel
warnings.simplefilter("ignore")

def work(n):
    import asyncio
    async def use():
        tx, rx = channel(1)
        await tx.send(n)
        return await rx.recv()
    try:
        return asyncio.run(use())
    except RuntimeError as error:
        return "fork" if "fork" in str(error) else repr(error)

if __name__ == "__main__":
    assert work(1) == 1
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(2) as pool:
        print(pool.map(work, range(3)))
"""


@pytest.mark.parametrize(
    ("method", "answer"),
    [("spawn", "[0, 1, 2]\n"), ("forkserver", "[0, 1, 2]\n"), ("fork", "['fork', 'fork', 'fork']\n")],
)
def test_multiprocessing(method: str, answer: str, tmp_path: Path) -> None:
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    process = subprocess.Popen(
        [sys.executable, str(script), method], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert end(process) == answer


# --- further interpreters ---
INTERPRETER = """
import importlib
try:
    interpreters = importlib.import_module("_interpreters")
except ImportError:
    interpreters = importlib.import_module("_xxsubinterpreters")

inside = '''
import gc, threading
from klaw_core._klaw import channel, native_channel, select, Ok
assert Ok(1).map(str) == Ok("1")
tx, rx = channel(4)
tx.send_sync([tx, rx])
tx.send_sync("second")
assert rx.recv_sync() == [tx, rx]
thread = threading.Thread(target=lambda: rx.recv_sync())
thread.start()
thread.join()
tx.send_sync(object())
tx.send_sync([tx])
del tx, rx  # with objects in it
gc.collect()
a, b = native_channel("bytes", 1)
a.send_sync(b"x")
assert b.recv_sync() == b"x"
try:
    b.recv_sync(timeout=0.001)
except Exception as error:
    assert "Empty" in type(error).__name__, error
'''

def run():
    interpreter = interpreters.create(isolated=False) if sys.version_info < (3, 12) else interpreters.create()
    try:
        failed = interpreters.run_string(interpreter, inside)  # 3.13 tells what failed, the others raise
    except interpreters.RunFailedError as error:
        failed = error
    interpreters.destroy(interpreter)
    return failed

tx, rx = channel(4)
tx.send_sync(1)
for _ in range(3):
    failed = run()
    if failed is not None:
        print(getattr(failed, "formatted", failed))
        break
threads = [threading.Thread(target=run) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert rx.recv_sync() == 1
async def main():
    task = asyncio.ensure_future(rx.recv())
    await asyncio.sleep(0)
    run()
    await tx.send(2)
    assert await task == 2
asyncio.run(main())
"""


def test_further_interpreters_have_their_own_instance() -> None:
    out = end(child(INTERPRETER))
    if out:
        # What is imported along must allow it; klaw's own module does.
        assert "does not support loading in subinterpreters" in out and "_klaw" not in out, out
        pytest.skip(out.strip())


def test_endpoints_do_not_reach_another_interpreter() -> None:
    script = """
        import importlib
        try: interpreters = importlib.import_module("_xxsubinterpreters")
        except ImportError: sys.exit(0)  # 3.13 shares nothing but plain data from the start
        tx, rx = channel(4)
        interpreter = interpreters.create()
        try:
            interpreters.run_string(interpreter, "x = tx", shared={"tx": tx})
        except Exception as error:
            sys.exit(0)
        sys.exit(1)
    """
    end(child(script))


MIXED = """
import importlib
try:
    interpreters = importlib.import_module("_interpreters")
except ImportError:
    interpreters = importlib.import_module("_xxsubinterpreters")

def now():
    got = interpreters.get_current()
    return int(got[0] if isinstance(got, tuple) else got)

current = set()
class Loop(asyncio.SelectorEventLoop):
    def call_soon(self, *args, **kwargs):
        current.add(now())
        return super().call_soon(*args, **kwargs)

inside = '''
import os
from klaw_core._klaw import channel
os.write(%d, b"x")
os.read(%d, 1)
tx, rx = channel(4)
tx.send_sync(1)
assert rx.recv_sync() == 1
'''
here, out = os.pipe()
back, into = os.pipe()
tx, rx = channel(4)

def thread():
    os.read(here, 1)
    tx.send_sync("x")  # completes what waits in the loop whose thread is in the other interpreter now
    os.write(into, b"x")

async def main():
    task = asyncio.ensure_future(rx.recv())
    await asyncio.sleep(0)
    threading.Thread(target=thread).start()
    interpreter = interpreters.create(isolated=False) if sys.version_info < (3, 12) else interpreters.create()
    failed = interpreters.run_string(interpreter, inside % (out, back))
    interpreters.destroy(interpreter)
    if failed is not None:
        print(getattr(failed, "formatted", failed))
        os.write(out, b"x")
    assert await asyncio.wait_for(task, 10) == "x"

with asyncio.Runner(loop_factory=Loop) as runner:
    runner.run(main())
assert current == {0}, current
"""


def test_a_loop_is_never_woken_inside_of_another_interpreter() -> None:
    out = end(child(MIXED))
    if out:
        assert "does not support loading in subinterpreters" in out and "_klaw" not in out, out
        pytest.skip(out.strip())
