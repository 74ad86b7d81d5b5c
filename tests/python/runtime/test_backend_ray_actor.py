# SPDX-License-Identifier: Apache-2.0
"""Actors on Ray: the same ActorRef, restarts decided by libklaw when a handler raises and when a process is killed,
checkpoints, names, supervisors, pools."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from klaw_core import Err, Nothing, Ok, Some
from klaw_core.runtime import (
    ActorNotFound,
    ActorRef,
    ActorStopped,
    ActorStoppedError,
    BackendError,
    BackendErrorException,
    Executor,
    LocalCheckpointer,
    Runtime,
    Supervisor,
    Timeout,
    Uncertain,
    actor_pool,
    context,
    current_context,
    get_actor,
    get_config,
    init,
    spawn_actor,
    whereis,
)

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

from klaw_core.runtime._backends.ray.actor import make_ray_ref  # noqa: E402
from klaw_core.runtime._backends.ray.wire import settle  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.anyio]

LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    pytest.param(("trio", {}), id="trio"),
]


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Each loop for the tests that ask for it; the others run on asyncio."""
    return getattr(request, "param", ("asyncio", {"use_uvloop": False}))


class Counter:
    """Counts; does what else it is told."""

    def __init__(self, start: int = 0) -> None:
        self.n = start

    async def handle(self, msg: Any) -> Any:
        match msg:
            case int():
                self.n += msg
                return self.n
            case "pid":
                return os.getpid()
            case "fail":
                raise ValueError("told to")
            case "lock":
                return threading.Lock()
            case "context":
                return current_context().request_id
            case ("sleep", seconds):
                await anyio.sleep(seconds)
                return "slept"
            case ("block", seconds):
                time.sleep(seconds)
            case ("touch", path):
                Path(path).touch()
            case ("ask", other, question):
                return await other.ask(question)
        return None

    def snapshot(self) -> int:
        return self.n

    def restore(self, value: int) -> None:
        self.n = value


class Farewell(Counter):
    """Says goodbye in a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    async def on_stop(self) -> None:
        await anyio.sleep(0)
        Path(self.path).touch()


@asynccontextmanager
async def actor(*args: Any, **options: Any) -> AsyncIterator[ActorRef[Any, Any]]:
    """An actor on Ray, ended with the block."""
    ref = await spawn_actor(*args, backend="ray", **options)
    try:
        yield ref
    finally:
        with anyio.CancelScope(shield=True):
            await ref.kill()


async def until(condition: Any, limit: float = 25.0) -> None:
    """Waits for a condition, looking often."""
    with anyio.fail_after(limit):
        while not condition():
            await anyio.sleep(0.01)


async def until_kept(name: str, state: int) -> None:
    """Waits until an actor's newest checkpoint has that state."""
    store = LocalCheckpointer(get_config().checkpoint_path)
    with anyio.fail_after(25.0):
        while await store.load(f"actor/{name}") != state:
            await anyio.sleep(0.01)


async def pid_of(ref: ActorRef[Any, Any]) -> int:
    pid: int = (await ref.ask("pid")).unwrap()
    return pid


# --- the same as on the local backend ---
@pytest.mark.parametrize("anyio_backend", LOOPS, indirect=True)
async def test_send_ask_and_stop(ray_cluster: Any) -> None:
    ref = await spawn_actor(Counter, 10, name="counter", backend="ray")
    assert isinstance(ref, ActorRef) and ref.is_alive and ref.name == "counter"
    for n in range(5):
        await ref.send(n)
    assert await ref.ask(1) == Ok(21)
    assert await ref.ask("pid") != Ok(os.getpid())
    with context(request_id="r7"):
        assert await ref.ask("context") == Ok("r7")
    assert await ref.ask(("sleep", 50), timeout=0.1) == Err(Timeout(0.1))
    await ref.kill()
    assert not ref.is_alive
    assert await ref.ask(1) == Err(ActorStopped("counter", "killed"))
    with pytest.raises(ActorStoppedError):
        await ref.send(1)


async def test_stop_handles_what_was_sent_before(ray_cluster: Any, tmp_path: Path) -> None:
    ref = await spawn_actor(Farewell, str(tmp_path / "bye"), backend="ray")
    for n in range(20):
        await ref.send(("touch", str(tmp_path / str(n))))
    await ref.stop()
    assert {path.name for path in tmp_path.iterdir()} == {"bye", *map(str, range(20))}
    assert await ref.ask(1) == Err(ActorStopped("Farewell", "stopped"))
    await ref.stop()
    await ref.wait()


async def test_a_full_mailbox_makes_senders_wait(ray_cluster: Any) -> None:
    async with actor(Counter, capacity=2) as ref:
        sleeper = await anyio.to_thread.run_sync(lambda: None)
        assert sleeper is None
        await ref.send(("sleep", 0.5))
        with anyio.move_on_after(0.2) as scope:
            for _ in range(10):
                await ref.send(1)
        assert scope.cancelled_caught, "ten messages went into a mailbox of two"
        assert (await ref.ask(0)).unwrap() in (2, 3, 4)


async def test_a_request_that_was_given_up_is_not_begun(ray_cluster: Any, tmp_path: Path) -> None:
    async with actor(Counter) as ref:
        await ref.send(("sleep", 0.5))
        assert await ref.ask(("touch", str(tmp_path / "late")), timeout=0.1) == Err(Timeout(0.1))
        with anyio.move_on_after(0.1):
            await ref.ask(("touch", str(tmp_path / "left")))
        assert await ref.ask(1) == Ok(1)
        assert list(tmp_path.iterdir()) == []


async def test_what_cannot_travel_is_told_and_the_actor_goes_on(ray_cluster: Any) -> None:
    async with actor(Counter) as ref:
        error = (await ref.ask(threading.Lock())).error
        assert isinstance(error, BackendError) and "can't be sent" in error.message
        with pytest.raises(BackendErrorException, match="can't be sent"):
            await ref.send(threading.Lock())
        error = (await ref.ask("lock")).error
        assert isinstance(error, BackendError) and "can't be sent back" in error.message, error
        assert await ref.ask(1) == Ok(1)
    lock = threading.Lock()

    class Stuck(Counter):
        held = lock

    with pytest.raises(BackendErrorException, match="can't be sent to a worker"):
        await spawn_actor(Stuck, backend="ray")


async def test_what_the_first_start_raises_is_raised(ray_cluster: Any) -> None:
    with pytest.raises(TypeError, match="argument"):
        await spawn_actor(Counter, 1, 2, name="never", backend="ray")
    assert whereis("never", namespace="klaw") is Nothing
    with pytest.raises(TypeError, match="handle"):
        await spawn_actor(object(), backend="ray")
    with pytest.raises(ValueError, match="'never'"):
        await spawn_actor(Counter, restart="sometimes", backend="ray")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ray_options"):
        await spawn_actor(Counter, ray_options={"num_cpus": 1})


async def test_kill_lets_on_stop_run_and_ends_a_handler_that_hangs(
    ray_cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("klaw_core.runtime._backends.ray.actor.CLEANUP", 1.0)
    ref = await spawn_actor(Farewell, str(tmp_path / "bye"), backend="ray")
    await ref.send(("sleep", 50))
    await ref.kill()
    assert (tmp_path / "bye").exists()
    stuck = await spawn_actor(Counter, backend="ray")
    pid = await pid_of(stuck)
    await stuck.send(("block", 50))
    await stuck.kill()
    await until(lambda: not os.path.exists(f"/proc/{pid}"))


async def test_two_actors_talk_and_an_actor_stops_itself(ray_cluster: Any) -> None:
    class Selfish(Counter):
        async def handle(self, msg: Any) -> Any:
            if isinstance(msg, ActorRef):
                await msg.stop()
                return "stopping"
            return await super().handle(msg)

    async with actor(Counter, 5) as one, actor(Counter) as two:
        assert await two.ask(("ask", one, 1)) == Ok(6)
        selfish = await spawn_actor(Selfish, backend="ray", restart="always")
        assert await selfish.ask(selfish) == Ok("stopping")
        await selfish.wait()
        assert not selfish.is_alive


async def test_a_ref_works_in_other_processes(ray_cluster: Any) -> None:
    async def outside(ref: ActorRef[Any, Any]) -> Any:
        await ref.send(1)
        first = await ref.ask(1)
        await ref.stop()
        return first, ref.is_alive, await ref.ask(1)

    ref = await spawn_actor(Counter, backend="ray", restart="always")
    async with Executor("ray") as ex:
        assert await ex.submit(outside, ref) == Ok((Ok(2), False, Err(ActorStopped("Counter", "stopped"))))
    await ref.wait()
    assert not ref.is_alive
    doomed = await spawn_actor(Counter, backend="ray", restart="always")

    async def murder(ref: ActorRef[Any, Any]) -> Any:
        await ref.kill()
        return ref.is_alive

    async with Executor("ray") as ex:
        assert await ex.submit(murder, doomed) == Ok(False)
    await doomed.wait()


# --- failures ---
async def test_a_handler_that_raises_is_restarted_in_its_process(ray_cluster: Any) -> None:
    seen: list[Any] = []
    async with actor(
        Counter,
        restart="on_failure",
        on_restart=lambda ref, error, attempt: seen.append(("restart", ref.name, attempt)),
        on_failure=lambda ref, error, attempt: seen.append(("failure", repr(error), attempt)),
    ) as ref:
        pid = await pid_of(ref)
        assert await ref.ask(3) == Ok(3)
        error = (await ref.ask("fail")).error
        assert isinstance(error, ValueError) and str(error) == "told to"
        assert await ref.ask(1) == Ok(1)
        assert await pid_of(ref) == pid
        await until(lambda: len(seen) == 2)
        assert sorted(seen) == [("failure", "ValueError('told to')", 1), ("restart", "Counter", 1)]


async def test_messages_outlive_a_restart_of_the_handler(ray_cluster: Any) -> None:
    async with actor(Counter, restart="on_failure") as ref:
        await ref.send(("sleep", 0.2))
        await ref.send("fail")
        for _ in range(5):
            await ref.send(1)
        assert await ref.ask(0) == Ok(5)


@pytest.mark.parametrize("anyio_backend", LOOPS[::2], indirect=True)
async def test_who_waits_for_the_end_takes_nobodys_place_and_may_leave(ray_cluster: Any) -> None:
    async with actor(Counter()) as ref:
        borrowed = pickle.loads(pickle.dumps(ref))

        async def waiting() -> int:
            return int((await settle(ref._remote.describe.remote(), 20.0))["waiting"])

        for _ in range(2):
            with anyio.move_on_after(25.0):
                async with anyio.create_task_group() as group:
                    for _ in range(5):
                        group.start_soon(borrowed.wait)
                    while await waiting() < 5:
                        await anyio.sleep(0.01)
                    group.cancel_scope.cancel()
            while await waiting():
                await anyio.sleep(0.01)
        parked = [ref._remote.until_over.remote() for _ in range(1100)]
        assert await waiting() <= 1000
    for each in parked[::1099]:
        with pytest.raises(ray.exceptions.ActorDiedError):
            await settle(each, 20.0)


@pytest.mark.parametrize("anyio_backend", LOOPS[::2], indirect=True)
async def test_a_killed_process_is_restarted_and_every_ask_has_one_outcome(ray_cluster: Any) -> None:
    seen: list[Any] = []
    async with actor(
        Counter, restart="on_failure", on_restart=lambda ref, error, attempt: seen.append((str(error), attempt))
    ) as ref:
        outcomes: list[Any] = []

        async def ask() -> None:
            outcomes.append(await ref.ask(("sleep", 50)))

        pid = await pid_of(ref)
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(ask)
            await until(lambda: ref._load == 20)
            os.kill(pid, signal.SIGKILL)
        assert len(outcomes) == 20
        assert all(isinstance(outcome.error, Uncertain) for outcome in outcomes), outcomes
        assert await ref.ask(1) == Ok(1)
        assert await pid_of(ref) != pid
        await until(lambda: seen)  # who restarted it tells, too, that it did
        assert len(seen) == 1 and "the process of actor 'Counter' died" in seen[0][0] and seen[0][1] == 1


async def test_what_is_asked_is_handled_at_most_once_whatever_is_killed(ray_cluster: Any, tmp_path: Path) -> None:
    class Log:
        def __init__(self, path: str) -> None:
            self.path = path

        async def handle(self, msg: Any) -> Any:
            if msg == "pid":
                return os.getpid()
            with open(self.path, "a") as log:
                log.write(f"{msg}\n")
            await anyio.sleep(0)
            return msg

    answered: list[int] = []
    failed: list[Any] = []
    killed = 0
    async with actor(Log, str(tmp_path / "log"), restart="on_failure", max_restarts=10, restart_window=60) as ref:

        async def ask(first: int) -> None:
            number = first
            while killed < 3:
                match await ref.ask(number):
                    case Ok(value):
                        assert value == number
                        answered.append(number)
                    case Err(error):
                        assert isinstance(error, Uncertain)
                        failed.append(number)
                number += 8

        async with anyio.create_task_group() as group:
            for first in range(8):
                group.start_soon(ask, first)
            while killed < 3:
                before = len(answered)
                await until(lambda before=before: len(answered) > before + 50)
                pid = await ref.ask("pid")
                if isinstance(pid, Ok):
                    os.kill(pid.value, signal.SIGKILL)
                    killed += 1
                    await until(lambda pid=pid: not os.path.exists(f"/proc/{pid.value}"))
    handled = (tmp_path / "log").read_text().split()
    assert len(handled) == len(set(handled)), "a message was handled twice"
    assert {*map(str, answered)} <= {*handled}
    assert len(answered) + len(failed) == len({*answered, *failed})


SHUT_DOWN = """
import anyio, os, sys, time, ray
sys.path.insert(0, sys.argv[1])
begun = sys.argv[2]
from runtime.test_backend_ray_actor import Counter, until
from klaw_core.runtime import Executor, spawn_actor
def work():
    open(begun, "x").close()
    time.sleep(50)
async def main():
    ref = await spawn_actor(Counter, backend="ray", restart="on_failure")
    async with Executor("ray") as ex:
        task = ex.submit(work)
        async with anyio.create_task_group() as group:
            async def ask():
                print("asked", await ref.ask(("sleep", 50)))
            group.start_soon(ask)
            await until(lambda: ref._load == 1 and os.path.exists(begun))
            await anyio.to_thread.run_sync(ray.shutdown)
    print("task", await task)
    print("later", await ref.ask(1))
    await ref.wait()
with anyio.from_thread.start_blocking_portal() as portal:
    portal.call(main)
print(ray.is_initialized())
"""


async def test_when_ray_is_shut_down_nobody_waits_for_ever(ray_cluster: Any, tmp_path: Path) -> None:
    done = await anyio.run_process(
        [sys.executable, "-c", SHUT_DOWN, str(Path(__file__).resolve().parents[1]), str(tmp_path / "begun")],
        env={**os.environ, "RAY_ADDRESS": ray_cluster["address"]},
        check=False,
        stderr=subprocess.STDOUT,
    )
    asked, task, later, again = done.stdout.decode().splitlines()[-4:]
    assert asked.startswith("asked Err(") and task.startswith("task Err(") and later.startswith("later Err("), asked
    assert "shut down" in asked + task and again == "False"


async def test_without_a_policy_a_killed_process_is_the_end(ray_cluster: Any) -> None:
    async with actor(Counter, name="mortal") as ref:
        os.kill(await pid_of(ref), signal.SIGKILL)
        await ref.wait()
        assert not ref.is_alive
        stopped = (await ref.ask(1)).error
        assert isinstance(stopped, ActorStopped) and "died" in stopped.reason
        assert get_actor("mortal", namespace="klaw") == Err(ActorNotFound("mortal"))


async def test_too_many_deaths_end_it(ray_cluster: Any) -> None:
    over: list[int] = []
    async with actor(
        Counter,
        restart="on_failure",
        max_restarts=1,
        restart_window=60,
        on_max_restarts=lambda ref, error, attempt: over.append(attempt),
    ) as ref:
        os.kill(await pid_of(ref), signal.SIGKILL)
        while isinstance(outcome := await ref.ask("pid"), Err):
            assert isinstance(outcome.error, Uncertain), outcome
        os.kill(outcome.value, signal.SIGKILL)
        await ref.wait()
        assert len(over) == 1
        assert isinstance((await ref.ask(1)).error, ActorStopped)


async def test_rays_own_restarts(ray_cluster: Any) -> None:
    failures: list[Any] = []
    async with actor(
        Counter, ray_options={"max_restarts": 1}, on_failure=lambda ref, error, attempt: failures.append(error)
    ) as ref:
        pid = await pid_of(ref)
        os.kill(pid, signal.SIGKILL)
        outcome = await ref.ask("pid")
        if isinstance(outcome, Err):  # asked before anybody knew
            assert isinstance(outcome.error, Uncertain)
            outcome = await ref.ask("pid")
        assert outcome.unwrap() != pid
        assert failures == []
        os.kill(outcome.unwrap(), signal.SIGKILL)
        await ref.wait()
        assert not ref.is_alive


async def test_state_comes_back_after_a_kill(ray_cluster: Any) -> None:
    async with actor(Counter, name="keeper", restart="on_failure", checkpoint=True, checkpoint_interval=0.05) as ref:
        assert await ref.ask(5) == Ok(5)
        pid = await pid_of(ref)
        await until_kept("keeper", 5)
        os.kill(pid, signal.SIGKILL)
        outcome = await ref.ask(1)
        if isinstance(outcome, Err):
            outcome = await ref.ask(1)
        assert outcome == Ok(6)
        await ref.stop()
    async with actor(Counter, name="keeper", checkpoint=True) as again:
        assert await again.ask(0) == Ok(6)


# --- names ---
async def test_names_are_the_clusters(ray_cluster: Any) -> None:
    async with actor(Counter, 7, name="known") as ref:
        assert get_actor("known") == Ok(ref)
        found = get_actor("known", namespace="klaw").unwrap()
        assert await found.ask(1) == Ok(8)
        assert isinstance(whereis("known", namespace="klaw"), Some)
        assert whereis("known", namespace="elsewhere") is Nothing
        with pytest.raises(ValueError, match="'known' is taken"):
            await spawn_actor(Counter, name="known", backend="ray")
        assert await ref.ask(1) == Ok(9)
        same = await spawn_actor(Counter, name="known", backend="ray", ray_options={"get_if_exists": True})
        assert await same.ask(1) == Ok(10)
    async with actor(Counter, 3, name="known") as ref:  # a name is free when its actor has ended
        assert await ref.ask(0) == Ok(3)


async def test_a_dead_actor_or_one_of_another_kind_is_not_found(ray_cluster: Any) -> None:
    @ray.remote(num_cpus=0)
    class Foreign:
        def pid(self) -> int:
            return os.getpid()

    foreign = Foreign.options(name="foreign", namespace="klaw").remote()
    pid = await foreign.pid.remote()
    assert get_actor("foreign", namespace="klaw") == Err(ActorNotFound("foreign"))
    with pytest.raises(ValueError, match="taken"):
        await spawn_actor(Counter, name="foreign", backend="ray")
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not os.path.exists(f"/proc/{pid}"))
    async with actor(Counter, name="foreign") as ref:
        assert await ref.ask(1) == Ok(1)
    del foreign


async def test_the_husk_that_ray_gives_out_for_a_name_is_not_found(ray_cluster: Any) -> None:
    ref = await make_ray_ref(
        Counter,
        (),
        {},
        policy={"restart": "never", "max_restarts": 0},
        hooks={},
        name="husk",
        capacity=1,
        checkpoint=False,
        checkpoint_interval=1.0,
    )
    assert get_actor("husk", namespace="klaw").is_ok()
    pid = (await ref._remote.describe.remote())["pid"]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ray.exceptions.ActorDiedError):
        await ref._remote.until_over.remote()
    assert ray.get_actor("husk", namespace="klaw") is not None, "Ray has become better than this test"
    assert get_actor("husk", namespace="klaw") == Err(ActorNotFound("husk"))
    ref.discard()


DETACH = """
import anyio, sys
sys.path.insert(0, sys.argv[1])
from runtime.test_backend_ray_actor import Counter
from klaw_core.runtime import spawn_actor
async def main():
    ref = await spawn_actor(Counter, 40, name="survivor", backend="ray", restart="on_failure", checkpoint=True,
                            checkpoint_interval=0.05, ray_options={"lifetime": "detached"})
    print(await ref.ask(1))
anyio.run(main)
"""


async def test_a_detached_actor_outlives_its_maker_and_restarts_with_its_state(ray_cluster: Any) -> None:
    env = {**os.environ, "RAY_ADDRESS": ray_cluster["address"]}
    done = await anyio.run_process(
        [sys.executable, "-c", DETACH, str(Path(__file__).resolve().parents[1])],
        env=env,
        check=False,
        stderr=subprocess.STDOUT,
    )
    assert done.stdout.decode() == "Ok(41)\n"
    init(backend="ray")
    ref = get_actor("survivor").unwrap()
    try:
        assert await ref.ask(1) == Ok(42)
        assert isinstance((await ref.ask("fail")).error, ValueError)
        pid = await pid_of(ref)
        state = (await ref.ask(1)).unwrap()
        await until_kept("survivor", state)
        os.kill(pid, signal.SIGKILL)
        outcome = await ref.ask(0)
        while isinstance(outcome, Err):
            outcome = await ref.ask(0)
        assert outcome.unwrap() == state and await pid_of(ref) != pid
        await ref.stop()
        assert get_actor("survivor") == Err(ActorNotFound("survivor"))
    finally:
        await ref.kill()


# --- supervisors, pools, runtimes ---
async def test_a_supervisor_restarts_its_group(ray_cluster: Any) -> None:
    async with Supervisor("one_for_all", max_restarts=5, restart_window=60) as sup:
        one = await sup.start_child(Counter, 1, name="one", backend="ray")
        two = await sup.start_child(Counter, 2, name="two", backend="ray")
        here = await sup.start_child(Counter, 3, name="here")
        assert [await ref.ask(10) for ref in (one, two, here)] == [Ok(11), Ok(12), Ok(13)]
        os.kill(await pid_of(one), signal.SIGKILL)
        await until(lambda: sup.children()[0].restarts == 1)
        await until(lambda: all(child.state == "running" for child in sup.children()))
        assert [await ref.ask(10) for ref in (one, two, here)] == [Ok(11), Ok(12), Ok(13)]
        await sup.stop_child(two)
        assert isinstance((await two.ask(1)).error, ActorStopped)
        await sup.restart_child(two)
        assert await two.ask(1) == Ok(3)
    assert not one.is_alive and not two.is_alive


async def test_a_pool_replaces_a_member_that_ended(ray_cluster: Any) -> None:
    async with await actor_pool(Counter, 2, "least_loaded", backend="ray", restart="never") as pool:
        assert sorted(r.unwrap() for r in await pool.map([1] * 10))[0] == 1
        victim = pool.members[0]
        os.kill(await pid_of(victim), signal.SIGKILL)
        await victim.wait()
        assert all(isinstance(r, Ok) for r in await pool.map([1] * 10))
        assert pool.replaced == 1
        await pool.resize(1)
        assert len(pool) == 1


async def test_a_runtime_on_ray(ray_cluster: Any) -> None:
    async with Runtime(backend="ray") as rt:
        tx, rx = await rt.channel(8)
        rt.spawn(tx.send, "x")  # what belongs to this process stays in it
        assert await rx.recv() == "x"
        task = rt.spawn(os.getpid)
        assert (await task).unwrap() != os.getpid()
        ref = await rt.spawn_actor(Counter)
        assert await pid_of(ref) != os.getpid()
    assert not ref.is_alive
