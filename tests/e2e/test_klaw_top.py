# SPDX-License-Identifier: Apache-2.0
"""klaw top in a pseudo-terminal: keys, resizing, and that the terminal is given back at every end."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import KLAW
from klaw_command import Klaw, needs_klaw

pytestmark = needs_klaw
PATIENCE = 20
ENTER = b"\033[?1049h"
LEAVE = b"\033[?25h\033[?1049l"


class Terminal:
    """klaw top on a terminal of its own. The last whole frame is what is on the screen."""

    def __init__(self, klaw: Klaw, *args: object, rows: int = 24, columns: int = 120) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(rows, columns, tell=False)
        self.before = termios.tcgetattr(self.slave)
        self.output = b""
        self.process = subprocess.Popen(
            [KLAW, "top", "--every", "100ms", *map(str, args)],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=klaw.env,
            start_new_session=True,  # whose terminal it becomes
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - the tests have no threads
        )

    def resize(self, rows: int, columns: int, tell: bool = True) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            self.process.send_signal(signal.SIGWINCH)

    def read(self) -> None:
        if select.select([self.master], [], [], 0.02)[0]:
            self.output += os.read(self.master, 1 << 16)

    def frame(self) -> list[str]:
        """Lines of the last whole frame, without colours."""
        frames = self.output.split(b"\033[H")
        whole = [f for f in frames[1:] if b"\033[J" in f]
        text = whole[-1].decode(errors="replace") if whole else ""
        return [re.sub(r"\033\[[0-9;]*[A-Za-z]", "", line).rstrip() for line in text.split("\r\n")]

    def until(self, what: Callable[[list[str]], bool]) -> list[str]:
        limit = time.monotonic() + PATIENCE
        while not what(self.frame()):
            assert time.monotonic() < limit, "\n".join(self.frame())
            assert self.process.poll() is None, self.output[-2000:]
            self.read()
        return self.frame()

    def shows(self, text: str) -> list[str]:
        return self.until(lambda lines: any(text in line for line in lines))

    def hides(self, text: str) -> list[str]:
        return self.until(lambda lines: len(lines) > 1 and not any(text in line for line in lines))

    def keys(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def ended(self) -> int:
        """Its exit code; the terminal has to be as it was."""
        limit = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < limit
            self.read()
        self.read()
        assert self.output.count(ENTER) == self.output.count(LEAVE) > 0
        assert self.output.rindex(LEAVE) > self.output.rindex(ENTER)
        assert termios.tcgetattr(self.slave) == self.before
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def klaw(tmp_path: Path) -> Iterator[Klaw]:
    made = Klaw(tmp_path)
    yield made
    made.close()


@pytest.fixture
def terminals(klaw: Klaw) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(*args: object, **more: int) -> Terminal:
        made.append(Terminal(klaw, *args, **more))
        return made[-1]

    yield make
    for terminal in made:
        terminal.close()


def test_it_is_live_and_q_ends_it(klaw: Klaw, terminals: Callable[..., Terminal]) -> None:
    with klaw.patient("healthy"):
        top = terminals()
        lines = top.shows("ticker")
        assert "klaw top - " in lines[0] and "patient" in lines[0] and "fibers 6" in lines[1]
        assert "channels 2" in lines[2] and "sent/sv" in lines[3]
        frames = top.output.count(b"\033[H")
        top.until(lambda _: top.output.count(b"\033[H") > frames + 3)
        top.keys("q")
        assert top.ended() == 0


def test_views_pages_and_the_way_back(klaw: Klaw, terminals: Callable[..., Terminal]) -> None:
    with klaw.patient("healthy"):
        top = terminals()
        top.shows("ticker")
        for key, text in (
            *(("2", "producer"), ("3", "queued"), ("4", "counting"), ("6", "done/s"), ("\t", "recv/s")),
            *(("\033[Z", "done/s"), ("\033[C", "recv/s")),
        ):
            top.keys(key)
            top.shows(text)
        top.keys("/ticks\r")
        top.hides("ticker")
        top.keys("\r")
        lines = top.shows("who holds its ends")
        assert any(re.search(r"sender +fiber 'producer'", line) for line in lines)
        assert any(re.search(r"to recv +fiber 'consumer'", line) for line in lines)
        top.keys("\033")
        top.shows("recv/s")
        top.keys("4\033")
        top.shows("counting")
        top.keys("\r")
        top.shows("this is life 1")
        top.keys("\033h")
        top.shows("Page Up and Down")
        top.keys("h\033")
        top.shows("counting")
        top.keys("q")
        assert top.ended() == 0


def test_rows_are_sorted_filtered_and_what_is_selected_stays(klaw: Klaw, terminals: Callable[..., Terminal]) -> None:
    with klaw.patient("many"):
        top = terminals("--view", "channels", "--sort", "name")
        lines = top.shows("channel 0")
        assert re.match(r" +1 channel 0 ", lines[4])
        top.keys("r")
        top.until(lambda now: len(now) > 4 and "channel 999" in now[4])
        top.keys("/channel 77\r")
        lines = top.hides("channel 999")
        assert [line.split()[2] for line in lines[4:15]] == ["779", "778", *map(str, range(777, 769, -1)), "77"]
        top.keys("jj\r")
        top.shows("who holds its ends")
        assert any(line.split() == ["channel", "channel", "777"] for line in top.frame())
        top.keys("\033\033")  # back, and no filter; the row is still the selected one
        assert any("channel 777" in line for line in top.shows("channel 780"))
        top.keys("\033[F")
        lines = top.until(lambda now: any("channel 0 " in line for line in now))
        top.keys("\033[5~\033[H")
        top.until(lambda now: "channel 999" in now[4])
        for _ in range(4):
            top.keys(">")
        top.shows("high")
        top.keys("q")
        assert top.ended() == 0


def test_it_follows_the_size_of_the_terminal(klaw: Klaw, terminals: Callable[..., Terminal]) -> None:
    with klaw.patient("many"):
        top = terminals("--view", "actors")
        top.until(lambda now: len(now) == 24 and "actor " in now[20])
        for rows, columns in ((50, 200), (12, 60), (3, 10), (1, 1), (40, 80)):
            top.resize(rows, columns)
            if rows >= 7:
                top.until(lambda now, rows=rows: len(now) == rows)
                assert all(len(line) <= columns for line in top.frame())
            else:
                frames = top.output.count(b"\033[H")
                top.until(lambda _, frames=frames: top.output.count(b"\033[H") > frames + 2)
        top.keys("q")
        assert top.ended() == 0


def test_pause_and_pace(klaw: Klaw, terminals: Callable[..., Terminal]) -> None:
    with klaw.patient("healthy"):
        top = terminals()
        top.shows("ticks")
        top.keys("p")
        assert "PAUSED" in top.shows("PAUSED")[0]
        top.keys("p-")
        top.shows("every 200 ms")
        top.keys("+")
        assert "PAUSED" not in top.shows("every 100 ms")[0]
        top.keys("q")
        assert top.ended() == 0


def test_the_process_is_chosen_and_changed(klaw: Klaw, terminals: Callable[..., Terminal]) -> None:
    with klaw.patient("healthy") as one, klaw.patient("storm") as two:
        top = terminals()
        lines = top.shows("which process?")
        pids = [line.split()[0] for line in lines if line.endswith(("healthy", "storm"))]
        assert pids == [str(pid) for pid in sorted([one.pid, two.pid])]
        top.keys("j\r")
        top.shows(f"klaw top - {max(one.pid, two.pid)} ")
        top.keys("o")
        top.shows("which process?")
        top.keys("k\r")
        top.shows(f"klaw top - {min(one.pid, two.pid)} ")
        top.keys("q")
        assert top.ended() == 0


def test_a_process_that_ends_is_told_and_the_view_stays(klaw: Klaw, terminals: Callable[..., Terminal]) -> None:
    with klaw.patient("healthy") as process:
        top = terminals()
        top.shows("ticker")
        process.kill()
        process.wait()
        lines = top.shows("ended")
        assert any("ticker" in line for line in lines)
        top.keys("o")
        top.shows("none is open")
        top.keys("q")
        assert top.ended() == 0


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 0),
        (signal.SIGTERM, 128 + signal.SIGTERM),
        (signal.SIGHUP, 128 + signal.SIGHUP),
        (signal.SIGQUIT, 128 + signal.SIGQUIT),
        (signal.SIGSEGV, -signal.SIGSEGV),
        (signal.SIGABRT, -signal.SIGABRT),
    ],
)
def test_signals_give_the_terminal_back(
    klaw: Klaw, terminals: Callable[..., Terminal], number: signal.Signals, code: int
) -> None:
    with klaw.patient("healthy"):
        top = terminals()
        top.shows("ticker")
        top.process.send_signal(number)
        assert top.ended() == code


def test_ctrl_c_and_ctrl_z_are_keys_of_the_terminal(klaw: Klaw, terminals: Callable[..., Terminal]) -> None:
    with klaw.patient("healthy"):
        top = terminals()
        top.shows("ticker")
        os.write(top.master, b"\x1a")
        limit = time.monotonic() + PATIENCE
        while Path(f"/proc/{top.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
            assert time.monotonic() < limit
            top.read()
        top.read()
        assert top.output.endswith(LEAVE) and termios.tcgetattr(top.slave) == top.before
        top.process.send_signal(signal.SIGCONT)
        top.until(lambda _: top.output.count(ENTER) == 2)
        top.shows("ticker")
        os.write(top.master, b"\x03")
        assert top.ended() == 0


def test_ctrl_c_ends_it_though_the_process_is_stopped(klaw: Klaw, terminals: Callable[..., Terminal]) -> None:
    with klaw.patient("healthy") as process:
        top = terminals()
        top.shows("ticker")
        process.send_signal(signal.SIGSTOP)
        try:
            until = time.monotonic() + 0.5  # a look every 100 ms: it waits for the answer by then, or else for the time
            while time.monotonic() < until:
                top.read()
            begun = time.monotonic()
            top.keys("\x03")
            assert top.ended() == 0
            assert time.monotonic() - begun < 8  # an answer is waited for 10 s
        finally:
            process.send_signal(signal.SIGCONT)


def test_a_terminal_that_hangs_up_ends_it(klaw: Klaw, terminals: Callable[..., Terminal]) -> None:
    with klaw.patient("healthy"):
        top = terminals()
        top.shows("ticker")
        master, top.master = top.master, os.dup(top.slave)
        os.close(master)
        assert top.process.wait(PATIENCE) in (0, 128 + signal.SIGHUP)


def test_garbage_from_the_keyboard_harms_nobody(klaw: Klaw, terminals: Callable[..., Terminal]) -> None:
    with klaw.patient("healthy"):
        top = terminals()
        top.shows("ticker")
        for junk in (
            b"\033[",
            b"\033[999999;9~",
            b"\033O",
            b"\xff\xfe\x00\x01",
            b"/\xf0\x9f\x98\x80\x7f\x7f\xc3\r\033",
            b"<<<>>>>>>>>>>>>>>",
        ):
            os.write(top.master, junk)
            frames = top.output.count(b"\033[H")
            top.until(lambda _, frames=frames: top.output.count(b"\033[H") > frames + 1)
        top.keys("\033q")
        assert top.ended() == 0


def test_without_a_terminal_one_frame_is_printed(klaw: Klaw) -> None:
    with klaw.patient("healthy"):
        said = klaw.ok("top", "--every", "50ms")
        assert "\033" not in said and "ticker" in said and "[ 1 channels 2 ]" in said
        assert klaw.ok("top", "--every", "50ms", "--view", "tree", "--lines", 0)
    assert klaw.run("top").returncode == 3
