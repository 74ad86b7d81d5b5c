# SPDX-License-Identifier: Apache-2.0
"""A chaos run: a cluster of several nodes, senders and receivers in processes of their own, faults, the account.

    PYTHONPATH=build/python/site:tests/python python -m chaos.driver SECONDS [SEED]

Everything random comes from the seed, which is printed; what the machine's schedule adds is not. The cluster is this
process's own, with a folder and a token of its own, and ends with it. The result is build/chaos/account.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos.account import Account, Faults, Mode, account, read_log, table

ROOT = Path(__file__).resolve().parents[3]
OUT = ROOT / "build" / "chaos"
LEASE = 8.0  # seconds here, so that a stop outlives it soon; hubs renew it every 5 s
SHORT = 30.0  # seconds below which a run has few processes and no loss of a node
RENEW = 5.0  # seconds until a process that goes on has learned that it was taken for dead
START_LIMIT = 150.0
DRAIN_LIMIT = 120.0
#: name: promises, options of ray_channel
CHANNELS: dict[str, tuple[Mode, dict[str, Any]]] = {
    "default": (Mode(), {}),
    "explicit": (Mode(), {"ack": "explicit"}),
    "before": (Mode(before=True), {"ack": "before"}),
    "durable": (Mode(durable=True), {"durable": True}),
    "durable-explicit": (Mode(durable=True), {"durable": True, "ack": "explicit"}),
}
#: Ray loses requests and answers of actor calls, of a share of them
RPC_FAILURE = {
    "CoreWorkerService.grpc_client.PushTask": {
        "num_failures": -1,
        "req_failure_prob": 2,
        "resp_failure_prob": 2,
        "in_flight_failure_prob": 0,
    }
}


class Worker:
    """A process that was started, by handle."""

    def __init__(self, run: Run, role: str, name: str) -> None:
        self.role, self.name, self.folder = role, name, run.folder
        self.output = (run.folder / f"{name}.out").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "chaos.worker", role, run.address, str(run.folder), name, *CHANNELS],
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            env=run.env,
        )
        self.stopped = False

    @property
    def up(self) -> bool:
        """Whether it works."""
        return (self.folder / f"{self.name}.up").exists()

    @property
    def working_pid(self) -> int:
        """Of the process that sends or receives: its own or that of its task."""
        return int((self.folder / f"{self.name}.pid").read_text())

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
        self.output.close()


class Run:
    """One run."""

    def __init__(self, seconds: float, seed: int, *, rpc_failure: bool = False) -> None:
        self.seconds, self.seed = seconds, seed
        self.short = seconds < SHORT
        self.chance = random.Random(seed)
        self.home = Path(tempfile.mkdtemp(prefix="kc-"))
        self.folder = self.home / "run"
        self.folder.mkdir()
        os.environ.update(
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN=secrets.token_hex(16),
            RAY_USAGE_STATS_ENABLED="0",
            RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
            RAY_TMPDIR=str(self.home),
            PYTHONPATH=os.pathsep.join([str(ROOT / "tests" / "python"), str(ROOT / "build" / "python" / "site")]),
            PYTHONPYCACHEPREFIX=str(ROOT / "build" / "python" / "pycache"),
        )
        os.environ.pop("RAY_ADDRESS", None)
        if rpc_failure:
            os.environ.update(
                RAY_testing_rpc_failure=json.dumps(RPC_FAILURE), RAY_testing_rpc_failure_avoid_intra_node_failures="0"
            )
        self.rpc_failure = rpc_failure
        self.env = dict(os.environ)
        self.faults = {name: Faults() for name in CHANNELS}
        self.counts: Counter[str] = Counter()
        self.workers: list[Worker] = []
        self.started = 0
        self.begun = time.monotonic()
        self.pairs: dict[str, Any] = {}
        self.told: dict[str, dict[int, int]] = {name: {} for name in CHANNELS}  # by boot, the losses it counted
        self.left: dict[str, int] = {}  # items that wait or are leased, when it was last asked

    def say(self, *words: object) -> None:
        """A line of progress."""
        print(f"{time.monotonic() - self.begun:7.1f} s", *words, flush=True)

    # --- the cluster ---

    def start(self) -> None:
        """The nodes, and this process as a driver."""
        from klaw_core.runtime._backends._ray_connect import ensure_ray  # noqa: PLC0415
        from ray.cluster_utils import Cluster  # noqa: PLC0415

        config = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000}
        head = {
            "num_cpus": 2,
            "object_store_memory": 100 << 20,
            "include_dashboard": False,
            "resources": {"head": 1000},
            "_system_config": config,
        }
        self.cluster = self.patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        self.address = self.cluster.address
        self.sides = [self.add_node() for _ in range(1 if self.short else 2)]
        ensure_ray(self.address, "klaw", timeout=START_LIMIT, log_to_driver=False)
        self.say("the cluster is up at", self.address)

    def add_node(self) -> Any:
        """A node beside the head, which may be lost."""
        return self.patiently(
            lambda: self.cluster.add_node(
                num_cpus=2,
                object_store_memory=100 << 20,
                resources={"side": 1000},
                wait=not self.short,
            )
        )

    def patiently(self, start: Callable[[], Any]) -> Any:
        """Ray gives a node half a minute to start, which may be too little on a busy machine: once more, then."""
        for _ in range(4):
            try:
                return start()
            except Exception as error:
                self.say("a node did not start:", error)
        return start()

    async def make_channels(self) -> None:
        """Durable ones stay on the head's node, the others' actors may be anywhere."""
        from klaw_core.runtime.channels.ray import ray_channel  # noqa: PLC0415

        async def make(name: str, options: dict[str, Any]) -> None:
            if options.get("durable"):
                options = {**options, "path": str(self.home / f"{name}.db")}
            elif not self.short:
                options = {**options, "actor_options": {"resources": {"side": 0.001}}}
            self.pairs[name] = await ray_channel(
                5000, name=name, max_restarts=-1, broker_options={"lease": LEASE, "gather": 1.0}, **options
            )
            for endpoint in self.pairs[name]:  # as long as these are open the channel does not close
                endpoint.open()

        await asyncio.gather(*(make(name, options) for name, (_, options) in CHANNELS.items()))
        self.say("channels:", ", ".join(CHANNELS))

    # --- the processes ---

    def launch(self, role: str) -> None:
        """One process more."""
        self.started += 1
        self.workers.append(Worker(self, role, f"{role.replace('-', '')}{self.started}"))

    def at_work(self, kind: str) -> list[Worker]:
        """Those of a kind that can be killed."""
        return [each for each in self.workers if each.role.startswith(kind) and each.alive and each.up]

    def gone(self, worker: Worker, until: float = math.inf) -> None:
        """The channels take it for dead; until: when it goes on, as a new client."""
        for each in self.faults.values():
            if worker.role.startswith("sender"):
                each.gone_lanes[worker.name] = max(until, each.gone_lanes.get(worker.name, 0.0))
            else:
                each.gone_receivers.add(worker.name)

    def replace_dead(self) -> None:
        """Those that are dead are replaced; a task's death, by that of its node, ends its driver, too."""
        for each in list(self.workers):
            if not each.alive:
                self.gone(each)
                self.workers.remove(each)
                each.output.close()
                self.launch(each.role)

    # --- faults ---

    async def actor_pid(self, name: str) -> int | None:
        """Of the process that holds a channel."""
        try:
            stats = await asyncio.wait_for(self.pairs[name][0].stats_async(), 10)
        except Exception:  # it is on its way back
            return None
        extras = stats.backend_extras
        told = self.told[name]
        told[extras["boot"]] = max(told.get(extras["boot"], 0), extras["lost"])
        self.left[name] = stats.queue_size + extras["leased"]
        return int(extras["pid"])

    async def look(self) -> None:
        """Asks all channels, again and again: a boot's counters end with it."""
        while True:
            await asyncio.gather(*map(self.actor_pid, CHANNELS))
            await asyncio.sleep(1.0)

    async def kill_actor(self) -> bool:
        """SIGKILL of a channel's actor."""
        name = self.chance.choice(list(CHANNELS))
        pid = await self.actor_pid(name)
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        self.faults[name].actor_ends.append(time.monotonic())
        return True

    async def kill_worker(self, kind: str) -> bool:
        """SIGKILL of a sender or a receiver; one of several stays."""
        those = self.at_work(kind)
        if len(those) < 2:
            return False
        victim = self.chance.choice(those)
        self.gone(victim)
        if victim.role.endswith("-task"):
            self.counts["drivers killed"] += 1
        victim.kill()
        return True

    async def stop_worker(self) -> bool:
        """SIGSTOP past the lease, then SIGCONT: it is dead for the channels, and does not know."""
        those = [each for each in self.workers if each.alive and each.up and not each.stopped]
        if len(those) < 3:
            return False
        victim = self.chance.choice(those)
        pid = victim.working_pid
        self.gone(victim, time.monotonic() + LEASE + 1.5 + RENEW)
        victim.stopped = True
        os.kill(pid, signal.SIGSTOP)

        async def later() -> None:
            await asyncio.sleep(LEASE + 1.5)
            victim.stopped = False
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        self.stops.append(asyncio.create_task(later()))
        return True

    async def lose_node(self) -> bool:
        """SIGKILL of a raylet: all processes of its node die. Another one comes."""
        if len(self.sides) < 2:
            return False
        node = self.sides.pop(self.chance.randrange(len(self.sides)))
        raylet = node.all_processes["raylet"][0].process.pid
        now = time.monotonic()
        os.kill(raylet, signal.SIGKILL)
        await asyncio.to_thread(self.cluster.remove_node, node, False)
        for name, (mode, _) in CHANNELS.items():
            if not mode.durable:  # which of them were there is not known here
                self.faults[name].actor_ends += [now, time.monotonic()]
        self.sides.append(self.add_node())  # Ray wants the main thread for that
        return True

    async def chaos(self) -> None:
        """Faults, one after the other, for the time of the run."""
        self.stops: list[asyncio.Task[None]] = []
        kinds = {
            "stopped past the lease": (self.stop_worker, 2),
            "actors killed": (self.kill_actor, 5),
            "senders killed": (lambda: self.kill_worker("sender"), 3),
            "receivers killed": (lambda: self.kill_worker("receiver"), 3),
            "nodes lost": (self.lose_node, 0 if self.short else 0.5),
        }
        end = time.monotonic() + self.seconds
        plan = list(kinds)[:4] if self.short else []  # each kind at least once
        while time.monotonic() < end:
            await asyncio.sleep(self.chance.uniform(0.3, 1.2))
            name = plan[0] if plan else self.chance.choices(list(kinds), [each[1] for each in kinds.values()])[0]
            if await kinds[name][0]():
                self.counts[name] += 1
                self.say(name.replace("killed", "kill"), self.counts[name])
                if plan:
                    plan.pop(0)
            self.replace_dead()
        await asyncio.gather(*self.stops)

    # --- the end ---

    def logs(self) -> dict[str, list[list[str]]]:
        """All that was written."""
        return {path.stem: list(read_log(path)) for path in sorted(self.folder.glob("*.log"))}

    def accounts(self) -> dict[str, Account]:
        """Of all channels."""
        logs = {name: [line for line in lines if line[0] != "#"] for name, lines in self.logs().items()}
        return {name: account(logs, name, mode, self.faults[name]) for name, (mode, _) in CHANNELS.items()}

    async def drain(self) -> None:
        """Until nothing comes any more, or all is there."""
        (self.folder / "quiet").touch()
        end = time.monotonic() + DRAIN_LIMIT
        before, since = -1, time.monotonic()
        while time.monotonic() < end:
            await asyncio.sleep(1.0)
            accounts = await asyncio.to_thread(self.accounts)
            received = sum(each.received + each.redelivered for each in accounts.values())
            if received != before:
                before, since = received, time.monotonic()
            # Redelivery takes a lease and 5 s; something uncertain may come with it.
            await asyncio.gather(*map(self.actor_pid, CHANNELS))
            missing = any(each.lost for each in accounts.values()) or any(self.left.values())
            if time.monotonic() - since > (30.0 if missing else 2.0):
                break

    async def run(self) -> dict[str, Account]:
        """All of it."""
        await self.make_channels()
        roles = ["sender", "receiver", "sender", "receiver"]
        roles += [] if self.short else ["sender-task", "receiver-task", "receiver"]
        for role in roles:
            self.launch(role)
        limit = time.monotonic() + START_LIMIT
        while not all(each.up for each in self.workers):
            if time.monotonic() > limit:
                break
            await asyncio.sleep(0.1)
            self.replace_dead()
        self.say(sum(each.up for each in self.workers), "processes at work")
        looking = asyncio.create_task(self.look())
        await self.chaos()
        looking.cancel()
        self.say("no more faults; draining")
        await self.drain()
        self.final = await asyncio.to_thread(self.accounts)
        for name, each in self.final.items():
            each.left = self.left[name]
        return self.final

    def injected(self) -> int:
        """How many calls Ray failed on purpose, by the logs of its processes."""
        logs = self.home.glob("session_2*/logs/*core-*.log")
        return sum(path.read_text(encoding="utf-8", errors="replace").count("Inject RPC") for path in logs)

    def report(self) -> str:
        """The account, for people."""
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        told = ", ".join(f"{name} {sum(self.told[name].values())}" for name, each in self.final.items() if each.gone)
        lines = [
            f"{self.seconds:.0f} seconds of faults, seed {self.seed}: {faults}."
            + (f" Ray itself lost the requests or answers of {self.injected()} calls." if self.rpc_failure else ""),
            "",
            table(self.final),
        ]
        if told:
            lines.append(f"Losses that the channels counted themselves (lower bounds): {told}.\n")
        return "\n".join(lines)

    def stop(self) -> None:
        """Ends what was started."""
        (self.folder / "end").touch()
        with contextlib.suppress(Exception):
            import ray  # noqa: PLC0415

            end = time.monotonic() + 10
            for each in self.workers:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    each.process.wait(max(0.1, min(3.0, end - time.monotonic())))
            ray.shutdown()
        for each in self.workers:
            if each.alive:
                each.kill()
        with contextlib.suppress(Exception):
            for node in list(self.cluster.worker_nodes):
                self.cluster.remove_node(node, allow_graceful=False)
            self.cluster.remove_node(self.cluster.head_node, allow_graceful=False)
        self.cluster = None


def chaos(seconds: float, seed: int, *, rpc_failure: bool = False) -> bool:
    """A run; whether every promise was kept. The logs of one that was not stay, their folder is printed."""
    run = Run(seconds, seed, rpc_failure=rpc_failure)
    print("seed", seed, flush=True)
    broken = True
    try:
        run.start()
        asyncio.run(run.run())
        text = run.report()
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / "account.md").write_text(text, encoding="utf-8")
        print(text, flush=True)
        for name, each in run.final.items():
            for example in each.examples[:5] if each.broken else ():
                print(f"{name}: {example}")
        broken = any(each.broken for each in run.final.values()) or not all(e.received for e in run.final.values())
    finally:
        run.stop()
        if broken:
            keep = OUT / f"logs-{seed}"
            shutil.rmtree(keep, ignore_errors=True)
            shutil.copytree(run.folder, keep)
            print("the logs are in", keep.relative_to(ROOT))
        shutil.rmtree(run.home, ignore_errors=True)
    return not broken


def main() -> int:
    """The program: exit status 1 when a promise was broken."""
    seconds = float(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("KLAW_CHAOS_SECONDS") or 1800)
    given = sys.argv[2] if len(sys.argv) > 2 else os.environ.get("KLAW_SEED")
    seed = int(given) if given else random.randrange(1 << 32)
    return 0 if chaos(seconds, seed, rpc_failure=bool(os.environ.get("KLAW_CHAOS_RPC"))) else 1


if __name__ == "__main__":
    sys.exit(main())
