#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs shell commands, several at a time, and remembers what became of each: klaw run-jobs in Python.

How klaw_core's parts are put together:

  LocalCheckpointer  one file that survives kill -9 and power cuts: the commands, the options, the results
  Workflow           the run; each command is a step of it. A step that is done never runs again, and only one process
                     at a time holds the run
  Executor           -j: so many at a time; imap takes the next command when a place is free
  retry              --retries and --backoff
  timeout            --timeout, of one attempt

What happens when: the step begins; the command runs; its result is saved; the step is recorded as done or failed.
Killed before the result is saved, the command runs again. A command has a process group of its own. A guard, a small
process, kills the groups that are left when this program is killed; a command does not begin before the guard knows it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from klaw_core import Err, Ok, Result
from klaw_core.runtime import (
    BackendErrorException,
    Executor,
    LocalCheckpointer,
    StepInfo,
    TaskCancelledError,
    Timeout,
    Workflow,
    WorkflowInfo,
    get_config,
    retry,
    timeout,
)

PREFIX = "jobs.py/"
KEPT = {"parallel": os.cpu_count() or 1, "retries": 0, "backoff": 1.0, "timeout": 0.0, "grace": 5.0, "tail": 4096}
LAST_WORDS = 0.3  # seconds for output that is still in the pipe; who holds it for longer has left the group
ALL_OK, SOME_FAILED, USAGE, TROUBLE = range(4)

GUARD = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    group = int(line)
    (groups.add if group > 0 else lambda group: groups.discard(-group))(group)
    if group > 0:
        print(flush=True)
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class Interrupted(BaseException):
    """Ctrl-C. Not an Exception: it does not make the workflow fail."""


class CommandFailed(Exception):
    """Of a step whose command failed for good."""


class UsageError(Exception):
    pass


@dataclass(slots=True)
class Command:
    number: int
    text: str
    step: str


@dataclass(slots=True)
class Outcome:
    """What became of a command. result: "ok", or what was wrong."""

    result: str = "ok"
    attempts: int = 0
    began: float = 0.0  # seconds since the epoch
    took: float = 0.0  # seconds, the last attempt
    output: int = 0  # bytes it wrote, the last attempt
    tail: bytes = b""

    @property
    def ok(self) -> bool:
        return self.result == "ok"


def parse_commands(text: bytes) -> list[Command]:
    commands: list[Command] = []
    seen: dict[str, int] = {}
    for raw in text.decode(errors="surrogateescape").split("\n"):
        line = raw.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        if "\0" in line:
            raise UsageError("the commands contain a NUL byte")
        # The name of a step says what it does: the same command is the same step, wherever it stands.
        digest = hashlib.blake2b(os.fsencode(line), digest_size=8).hexdigest()
        seen[line] = seen.get(line, 0) + 1
        commands.append(Command(len(commands) + 1, line, f"{digest} {seen[line]}"))
    if not commands:
        raise UsageError("there are no commands")
    return commands


# ---- one attempt ----------------------------------------------------------------------------------------------------


class Guard:
    """Kills the groups it knows when we end without a word. `add` returns when it knows."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin and process.stdout
        self.process, self.stdin, self.stdout = process, process.stdin, process.stdout
        self._lock = asyncio.Lock()

    @classmethod
    @contextlib.asynccontextmanager
    async def run(cls) -> AsyncIterator[Guard]:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-ISc", GUARD, stdin=pipe, stdout=pipe, start_new_session=True
        )
        guard = cls(process)
        try:
            yield guard
        finally:
            guard.stdin.close()
            await process.wait()

    async def add(self, group: int) -> None:
        async with self._lock:
            self.stdin.write(b"%d\n" % group)
            await self.stdout.readline()

    def remove(self, group: int) -> None:
        self.stdin.write(b"%d\n" % -group)


async def keep_tail(stream: asyncio.StreamReader, outcome: Outcome, room: int) -> None:
    while data := await stream.read(1 << 16):
        outcome.output += len(data)
        outcome.tail = (outcome.tail + data)[-room:] if room else b""


def describe(code: int) -> str:
    if code == 0:
        return "ok"
    if code > 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"signal {-code} ({signal.Signals(-code).name.removeprefix('SIG')})"
    return f"signal {-code}"


def kill_group(process: asyncio.subprocess.Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


async def end(process: asyncio.subprocess.Process, grace: float) -> None:
    """Asks the group to end, then makes it."""
    kill_group(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), grace)
    kill_group(process, signal.SIGKILL)
    await process.wait()


async def attempt(run: Run, command: Command, outcome: Outcome) -> str:
    """Runs the command once; how it ended. Cancelled: the command is ended first."""
    start = time.monotonic()
    outcome.output, outcome.tail = 0, b""
    environment = {
        **os.environ,
        "JOBS_RUN": run.name,
        "JOBS_NUMBER": str(command.number),
        "JOBS_ATTEMPT": str(outcome.attempts),
        "JOBS_ID": f"{run.name}/{command.step}".replace(" ", "-"),
    }
    go, ready = os.pipe()
    # A pipe of our own: asyncio's would keep wait() waiting for whoever holds it.
    output, end_of_output = os.pipe()
    stream = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(output, "rb", buffering=0)
    )
    try:
        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", 'read -r _ && exec /bin/sh -c "$1" </dev/null', "sh", os.fsencode(command.text)),
            stdin=go,
            stdout=end_of_output,
            stderr=end_of_output,
            start_new_session=True,
            env=environment,
        )
    except OSError:
        os.close(ready)
        pipe.close()
        return "could not be started"
    finally:
        os.close(go)
        os.close(end_of_output)
    reader = asyncio.ensure_future(keep_tail(stream, outcome, run.kept["tail"]))
    try:
        try:
            await run.guard.add(process.pid)
            os.write(ready, b"\n")
        finally:
            os.close(ready)
        code = await process.wait()
    except asyncio.CancelledError:
        await asyncio.shield(end(process, run.kept["grace"]))
        raise
    finally:
        kill_group(process, signal.SIGKILL)  # what it has left in its group
        run.guard.remove(process.pid)
        await asyncio.wait([reader], timeout=LAST_WORDS)
        reader.cancel()
        pipe.close()
        outcome.took = time.monotonic() - start
    return describe(code)


# ---- a run ----------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    options: argparse.Namespace
    store: LocalCheckpointer
    path: str
    name: str = ""
    commands: list[Command] = field(default_factory=list)
    commands_before: list[Command] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)  # by step
    before: int = 0
    running: int = 0
    repeated: int = 0
    signal: int = 0
    began: float = field(default_factory=time.monotonic)
    guard: Guard = None  # type: ignore[assignment]
    workflow: Workflow = None  # type: ignore[assignment]
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    def key(self, rest: str) -> str:
        return f"{PREFIX}{self.name}/{rest}"

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    async def load(self) -> dict[str, Any] | None:
        """The commands and options that are kept of this run."""
        kept: dict[str, Any] | None = await self.store.load(self.key("run"))
        return kept

    async def load_outcomes(self) -> None:
        wanted = {command.step for command in self.commands}
        prefix = self.key("result/")
        for key in await self.store.list(prefix):
            if key.removeprefix(prefix) in wanted:
                self.outcomes[key.removeprefix(prefix)] = Outcome(**await self.store.load(key))

    async def forget(self) -> bool:
        """Deletes all that is kept of it. Whether there was something."""
        found = False
        with contextlib.suppress(LookupError):
            await Workflow.delete(PREFIX + self.name, path=self.path)
            found = True
        for key in await self.store.list(self.key("")):
            found |= await self.store.delete(key)
        return found

    # -- one command --
    async def try_command(self, command: Command) -> Outcome:
        """All attempts. Interrupted: Ctrl-C came before the last one had ended."""
        outcome = Outcome(began=time.time())
        limit = self.kept["timeout"]

        async def once() -> Result[str, str]:
            outcome.attempts += 1
            if outcome.attempts > 1:
                self.repeated += 1
                if self.options.verbose and not self.options.quiet:
                    self.say(
                        f"{outcome.result}, attempt {outcome.attempts - 1}: #{command.number} {command.text[:200]}"
                    )
            self.running += 1
            try:
                if limit:
                    match await timeout(attempt(self, command, outcome), limit):
                        case Err(Timeout()):
                            outcome.result = "time limit"
                        case Ok(result):
                            outcome.result = result
                else:
                    outcome.result = await attempt(self, command, outcome)
            finally:
                self.running -= 1
            return Ok("ok") if outcome.ok else Err(outcome.result)

        trying = asyncio.ensure_future(
            retry(
                once,
                attempts=self.kept["retries"] + 1,
                backoff=self.kept["backoff"],
                max_delay=300,
                jitter="equal",
            )
        )
        stop = asyncio.ensure_future(self.stop.wait())
        try:
            await asyncio.wait([trying, stop], return_when=asyncio.FIRST_COMPLETED)
            if trying.done():
                trying.result()
                return outcome
            raise TaskCancelledError("interrupted")
        finally:
            for task in (trying, stop):
                task.cancel()
            await asyncio.wait([trying, stop])

    async def step(self, command: Command) -> str:
        """The function of a command's step."""
        outcome = await self.try_command(command)
        await self.store.save(self.key(f"result/{command.step}"), asdict(outcome))
        self.outcomes[command.step] = outcome
        if not self.options.quiet and (not outcome.ok or self.options.verbose):
            self.say(summary_line(command, outcome))
            if self.options.verbose and outcome.tail:
                self.say(outcome.tail.decode(errors="replace").rstrip("\n"))
        if not outcome.ok:
            raise CommandFailed(outcome.result)
        return outcome.result

    async def run_command(self, command: Command) -> None:
        if self.stop.is_set():
            return
        with contextlib.suppress(CommandFailed, TaskCancelledError):
            await self.workflow.step(command.step, self.step, command)

    # -- all of them --
    async def work(self) -> None:
        todo = [c for c in self.commands if c.step not in self.outcomes or self.again(c)]
        for command in todo:
            self.outcomes.pop(command.step, None)
        async with Executor(concurrency=self.kept["parallel"]) as ex:
            async for result in ex.imap(self.run_command, todo, ordered=False, ahead=self.kept["parallel"]):
                match result:
                    case Err(Exception() as error):
                        self.stop.set()
                        raise error

    def again(self, command: Command) -> bool:
        return bool(self.options.retry_failed) and not self.outcomes[command.step].ok

    async def run(self) -> int:
        await self.prepare()
        self.workflow = Workflow(
            PREFIX + self.name,
            steps=[command.step for command in self.commands],
            path=self.path,
            allow_changes=self.options.allow_changes,
            uncancel=True,
        )
        try:
            async with self.workflow:
                await self.store.save(
                    self.key("run"),
                    {"commands": [c.text.encode(errors="surrogateescape") for c in self.commands], **self.kept},
                )
                await self.load_outcomes()
                self.before = sum(not self.again(c) for c in self.commands if c.step in self.outcomes)
                if self.before and not self.options.quiet:
                    self.say(
                        f"jobs: going on with run {self.name}: {self.before} of {len(self.commands)} finished before"
                    )
                async with Guard.run() as self.guard, stopping(self), progress(self):
                    await self.work()
                failed = sum(not outcome.ok for outcome in self.outcomes.values())
                if len(self.outcomes) < len(self.commands):
                    raise Interrupted
                if failed:
                    raise CommandFailed(f"{failed} of {len(self.commands)} commands failed")
        except Interrupted:
            code = 128 + self.signal if self.signal else TROUBLE
        except CommandFailed:
            code = SOME_FAILED
        except ValueError as error:
            told = str(error)
            for command in (*self.commands, *self.commands_before):
                told = told.replace(f'"{command.step}"', f'"{command.text}"')
            raise UsageError(
                f"the run '{self.name}' has other commands: {told}\njobs: --allow-changes goes on with the new ones, "
                "--restart begins again, --name NAME makes another run"
            ) from None
        else:
            code = ALL_OK
        if not self.options.quiet:
            self.summary()
        return code

    async def prepare(self) -> None:
        """The commands and the options, from the arguments and from what is kept."""
        options = self.options
        self.name = options.name or ""
        if options.resume and not self.name:
            self.name = await self.last_unfinished()
        kept = await self.load()
        file = options.file
        if options.resume and file and kept is not None and not os.path.isfile(file) and file != "-":
            file = None
        if options.resume and kept is None and (not file or not (os.path.isfile(file) or file == "-")):
            raise UsageError(f"{self.path} has no run '{self.name}'; --list shows the runs")
        if options.restart:
            await self.forget()
        known = (kept or {}) if not options.restart else {}
        if known:
            self.commands_before = parse_commands(b"\n".join(known["commands"]))
        self.kept = {
            key: next(v for v in (getattr(options, key), known.get(key), default) if v is not None)
            for key, default in KEPT.items()
        }
        if file:
            try:
                self.commands = parse_commands(await asyncio.to_thread(read_file, file))
            except OSError as error:
                raise UsageError(f"{file}: {error.strerror}") from None
        else:
            assert kept is not None
            self.commands = parse_commands(b"\n".join(kept["commands"]))

    async def last_unfinished(self) -> str:
        names = await run_names(self.store)
        runs = await Workflow.list(PREFIX, path=self.path)
        for info in sorted(runs, key=lambda info: info.updated or 0, reverse=True):
            run = info.name.removeprefix(PREFIX)
            if run in names and (info.state == "running" or (info.state == "failed" and self.options.retry_failed)):
                return run
        raise UsageError(f"no run in {self.path} is unfinished")

    def summary(self) -> None:
        done = [self.outcomes[c.step] for c in self.commands if c.step in self.outcomes]
        ok = sum(outcome.ok for outcome in done)
        failed, unfinished = len(done) - ok, len(self.commands) - len(done)
        plural = "command" if len(self.commands) == 1 else "commands"
        text = f"run {self.name}: {len(self.commands)} {plural}, {ok} ok, {failed} failed"
        text += f", {unfinished} not finished" if unfinished else ""
        text += f" ({self.before} before)" if self.before else ""
        print(f"{text}; {self.repeated} attempts repeated; {duration(time.monotonic() - self.began)}")
        bad = [c for c in self.commands if c.step in self.outcomes and not self.outcomes[c.step].ok]
        for command in bad[:20]:
            print(f"  #{command.number} {self.outcomes[command.step].result}: {shorten(command.text, 80)}")
        if len(bad) > 20:
            print(f"  and {len(bad) - 20} more")
        if unfinished:
            print(f"go on with: jobs.py --resume {self.name}")
        elif failed:
            print(f"outputs: jobs.py --show {self.name} N; again: jobs.py --resume --retry-failed {self.name}")


def read_file(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    with open(file, "rb") as stream:
        return stream.read()


def summary_line(command: Command, outcome: Outcome) -> str:
    plural = "attempt" if outcome.attempts == 1 else "attempts"
    text = shorten(command.text, 200)
    return f"{outcome.result}, {outcome.attempts} {plural}, {duration(outcome.took)}: #{command.number} {text}"


def shorten(text: str, width: int) -> str:
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= width else text[:width] + "…"


def duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"


@contextlib.asynccontextmanager
async def stopping(run: Run) -> AsyncIterator[None]:
    """The first Ctrl-C ends the running commands, the second one the program (the guard ends the commands then)."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int) -> None:
        run.signal = number
        for each in signals:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        run.say("jobs: ending the running commands; once more to stop at once")
        run.stop.set()

    for each in signals:
        loop.add_signal_handler(each, stop, each)
    try:
        yield
    finally:
        if not run.signal:
            for each in signals:
                loop.remove_signal_handler(each)


@contextlib.asynccontextmanager
async def progress(run: Run) -> AsyncIterator[None]:
    """A bar, when stderr is a terminal and rich is there."""
    bar: Any = None
    if sys.stderr.isatty() and not run.options.quiet:
        with contextlib.suppress(ImportError):
            from rich import progress as parts  # noqa: PLC0415
            from rich.console import Console  # noqa: PLC0415 - it need not be there

            text = parts.TextColumn("{task.description}")
            columns = (parts.BarColumn(), parts.MofNCompleteColumn(), text, parts.TimeElapsedColumn())
            bar = parts.Progress(*columns, console=Console(stderr=True), transient=True)
    if bar is None:
        yield
        return
    with bar:
        line = bar.add_task("", total=len(run.commands))
        run.say = bar.console.print  # type: ignore[method-assign] # above the bar

        async def show() -> None:
            while True:
                failed = sum(not outcome.ok for outcome in run.outcomes.values())
                bar.update(line, completed=len(run.outcomes), description=f"{failed} failed, {run.running} running")
                await asyncio.sleep(0.1)

        task = asyncio.ensure_future(show())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


# ---- looking --------------------------------------------------------------------------------------------------------


def state_of(info: WorkflowInfo) -> str:
    return "unfinished" if info.interrupted else info.state


def clock(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""


async def run_names(store: LocalCheckpointer) -> list[str]:
    keys = await store.list(PREFIX)
    return [key.removeprefix(PREFIX).removesuffix("/run") for key in keys if key.endswith("/run")]


async def show_list(run: Run) -> int:
    rows = [
        f"{state_of(info):<11} {info.steps_done:>8} {info.n_steps:>8}  {clock(info.updated):<19}  "
        f"{info.name.removeprefix(PREFIX)}"
        for info in await Workflow.list(PREFIX, path=run.path)
    ]
    if rows:
        print(f"{'state':<11} {'ok':>8} {'of':>8}  {'last change':<19}  run", *rows, sep="\n")
    return ALL_OK


def standing(info: WorkflowInfo, step: StepInfo | None, got: Outcome | None) -> tuple[str, Outcome | None]:
    """How it stands with a command, and its outcome when it has finished."""
    if step is None or step.state == "pending":
        return "waiting", None
    if step.state == "started" or step.error == "KLAW_CANCELLED":
        return ("running" if step.state == "started" and info.leased else "interrupted"), None
    return (got.result, got) if got else (step.message or "failed", None)


async def show_run(run: Run, number: int | None) -> int:
    kept = await run.load()
    try:
        info = await Workflow.show(PREFIX + run.name, path=run.path)
    except LookupError:
        kept = None
    if kept is None:
        raise UsageError(f"{run.path} has no run '{run.name}'; --list shows the runs")
    run.commands = parse_commands(b"\n".join(kept["commands"]))
    await run.load_outcomes()
    steps = {step.name: step for step in info.steps}
    if number is None:
        print(f"run {run.name}: {state_of(info)}, {info.steps_done} of {len(run.commands)} ok\n")
        print(f"{'number':>6}  {'result':<20} {'attempts':>8} {'took':>12}  command")
        for command in run.commands:
            text, got = standing(info, steps.get(command.step), run.outcomes.get(command.step))
            attempts, took = (got.attempts, duration(got.took)) if got else (0, "")
            print(f"{command.number:>6}  {text:<20} {attempts:>8} {took:>12}  {shorten(command.text, 100)}")
        return ALL_OK
    if not 1 <= number <= len(run.commands):
        raise UsageError(f"the run '{run.name}' has {len(run.commands)} commands")
    command = run.commands[number - 1]
    text, got = standing(info, steps.get(command.step), run.outcomes.get(command.step))
    print(f"command   {command.text}\nresult    {text}")
    if got:
        print(f"attempts  {got.attempts}\nbegan     {clock(got.began)}\ntook      {duration(got.took)}")
        print(f"output    {got.output} bytes" + (f", the last {len(got.tail)}:" if got.output > len(got.tail) else ""))
        if got.tail:
            print("\n" + got.tail.decode(errors="replace").removesuffix("\n"))
    return ALL_OK


async def delete(run: Run) -> int:
    if not await run.forget():
        raise UsageError(f"{run.path} has no run '{run.name}'")
    return ALL_OK


# ---- the command line -----------------------------------------------------------------------------------------------


def seconds(text: str) -> float:
    for unit, scale in (("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)):
        if text.endswith(unit) and text[: -len(unit)].replace(".", "", 1).isdigit():
            return float(text[: -len(unit)]) * scale
    raise argparse.ArgumentTypeError(f"'{text}' is not a time: 500ms, 10s, 5m, 2h")


def natural(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not a number")
    return int(text)


def positive(text: str) -> int:
    if natural(text) < 1:
        raise argparse.ArgumentTypeError("1 or more")
    return int(text)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"jobs: {message}; --help explains\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(
        "jobs.py",
        usage="jobs.py [options] [FILE]           run the commands of FILE, one a line ('-': stdin)\n"
        "       jobs.py --resume [options] [NAME]  go on with a run (the last unfinished one)\n"
        "       jobs.py --list | --show NAME [N] | --delete NAME",
        description="Runs shell commands, several at a time, and remembers what became of each. A command that has "
        "finished never runs again.",
        epilog="Each command goes to /bin/sh -c and finds JOBS_RUN, JOBS_NUMBER, JOBS_ATTEMPT and JOBS_ID in its "
        "environment. Exit status: 0 all commands succeeded; 1 some failed; 2 wrong usage; 3 the run could not go on; "
        "130 after Ctrl-C, 143 after SIGTERM. Example: jobs.py -j 4 --retries 2 list; after Ctrl-C: jobs.py --resume",
    )
    add = parser.add_argument
    add("file", nargs="?", metavar="FILE")
    add("-j", "--jobs", type=positive, dest="parallel", metavar="N", help="so many at a time (one per processor)")
    add("-r", "--retries", type=natural, metavar="N", help="try a command that fails N times more (0)")
    add("--backoff", type=seconds, metavar="T", help="the wait before the second attempt; it doubles (1s)")
    add("-t", "--timeout", type=seconds, metavar="T", help="the time limit of one attempt (none)")
    add("--grace", type=seconds, metavar="T", help="between SIGTERM and SIGKILL (5s)")
    add("--tail", type=natural, metavar="BYTES", help="how much of the end of a command's output is kept (4096)")
    add("-n", "--name", metavar="NAME", help="what the run is called (the file's name; 'stdin')")
    add("--resume", action="store_true", help="go on with a run; without FILE its commands are in the store")
    add("--retry-failed", action="store_true", help="on the way, run those that failed again")
    add("--allow-changes", action="store_true", help="the commands may have changed; those with a result keep it")
    add("--restart", action="store_true", help="forget what the run has done and begin again")
    add("-l", "--list", action="store_true", help="the runs in the store")
    add("-s", "--show", nargs="+", metavar=("NAME", "N"), help="what became of a run; of command N, with its output")
    add("--delete", metavar="NAME", help="forget a run")
    add("--store", metavar="FILE", help="where all is kept (~/.klaw/checkpoints/jobs.db)")
    add("-v", "--verbose", action="store_true", help="say how each command ended, with its output")
    add("-q", "--quiet", action="store_true", help="only errors")
    options = parser.parse_args(arguments)
    looking = options.list or options.show or options.delete
    if options.show and (len(options.show) > 2 or (len(options.show) == 2 and not options.show[1].isdigit())):
        parser.error("--show NAME [N]")
    if looking and options.file:
        parser.error("--list, --show and --delete take no FILE")
    if options.store == "":
        parser.error("--store FILE")
    if options.resume and options.restart:
        parser.error("--resume or --restart, not both")
    if not looking and not options.file and not options.resume:
        if sys.stdin.isatty():
            parser.error("no commands: name a file of them, or '-'")
        options.file = "-"
    if options.name is None and options.file:
        options.name = "stdin" if options.file == "-" else os.path.basename(options.file)
    if options.name is not None and (not options.name or "/" in options.name or len(options.name) > 100):
        parser.error("a name has 1 to 100 characters, none of them '/'")
    return options


async def act(options: argparse.Namespace) -> int:
    path = options.store or os.path.join(get_config().checkpoint_path, "jobs.db")
    run = Run(options, LocalCheckpointer(path), path)
    if options.list:
        return await show_list(run)
    if options.show:
        run.name = options.show[0]
        return await show_run(run, int(options.show[1]) if len(options.show) == 2 else None)
    if options.delete:
        run.name = options.delete
        return await delete(run)
    return await run.run()


def main() -> int:
    options = parse()
    try:
        return asyncio.run(act(options))
    except UsageError as error:
        print(f"jobs: {error}", file=sys.stderr)
        return USAGE
    except (OSError, RuntimeError, BackendErrorException) as error:
        print(f"jobs: the run can't go on: {error}", file=sys.stderr)
        return TROUBLE


if __name__ == "__main__":
    sys.exit(main())
