# SPDX-License-Identifier: Apache-2.0
"""klaw ui as a server: who is let in, what it answers. No browser."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

Start = Callable[..., Any]


def ask(ui: Any, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(ui.origin).netloc, timeout=20)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def log_in(ui: Any) -> str:
    """The cookie."""
    status, headers, _ = ask(ui, "/?" + urlsplit(ui.address()).query)
    assert status == 303 and headers["Location"] == "/"
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    return cookie.split(";")[0]


def test_the_address_is_good_once_and_another_one_is_printed(start: Start) -> None:
    ui = start()
    first = "/?" + urlsplit(ui.address()).query
    assert ask(ui, first)[0] == 303
    assert ask(ui, first)[0] == 403
    assert ui.address(1, at_least=2) != ui.address(0)
    assert ask(ui, "/?" + urlsplit(ui.address(1)).query)[0] == 303


@pytest.mark.parametrize(
    "path", ["/", "/app.js", "/processes", "/events?pid=1", "/metrics", "/?token=", "/?token=00", "/nothing"]
)
def test_nothing_is_answered_without_the_cookie(start: Start, path: str) -> None:
    ui = start()
    assert ask(ui, path)[0] == 403
    name = "klaw_ui_" + ui.origin.rsplit(":", 1)[1]
    assert ask(ui, path, Cookie=f"{name}=")[0] == 403
    assert ask(ui, path, Cookie=f"{name}=" + "0" * 32)[0] == 403


def test_two_of_them_keep_their_cookies_apart(start: Start) -> None:
    names = {log_in(start()).split("=")[0] for _ in range(2)}
    assert len(names) == 2  # a browser has one jar for all ports of an address


def test_a_page_of_another_name_gets_nothing(start: Start) -> None:
    ui = start()
    cookie = log_in(ui)
    for host in ("evil.example", "evil.example:" + ui.origin.rsplit(":", 1)[1], "127.0.0.1"):
        assert ask(ui, "/processes", Cookie=cookie, Host=host)[0] == 403
    assert ask(ui, "/processes", Cookie=cookie)[0] == 200


def test_it_listens_on_this_machine_alone(start: Start) -> None:
    port = int(start().origin.rsplit(":", 1)[1])
    rows = Path("/proc/net/tcp").read_text().splitlines() + Path("/proc/net/tcp6").read_text().splitlines()
    listening = [row.split()[1] for row in rows if row.split()[3] == "0A" and row.split()[1].endswith(f":{port:04X}")]
    assert listening == [f"0100007F:{port:04X}"]


def test_answers_carry_the_policy_and_are_not_kept(start: Start) -> None:
    ui = start()
    cookie = log_in(ui)
    for path in ("/", "/app.js", "/worker.js", "/style.css", "/processes", "/metrics"):
        status, headers, body = ask(ui, path, Cookie=cookie)
        assert status == 200 and body
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
    assert ask(ui, "/", "POST", Cookie=cookie)[0] == 405
    assert ask(ui, "/nothing", Cookie=cookie)[0] == 404


def events(ui: Any, cookie: str, pid: int, n: int) -> list[tuple[str, Any]]:
    connection = http.client.HTTPConnection(urlsplit(ui.origin).netloc, timeout=20)
    connection.request("GET", f"/events?pid={pid}&period=100", headers={"Cookie": cookie})
    answer = connection.getresponse()
    assert answer.status == 200 and answer.getheader("Content-Type") == "text/event-stream"
    found = []
    while len(found) < n:
        kind = answer.readline().decode()
        data = answer.readline().decode()
        assert kind.startswith("event: ") and data.startswith("data: ") and answer.readline() == b"\n"
        found.append((kind[7:].strip(), json.loads(data[6:])))
    connection.close()
    return found


def test_the_stream_gives_snapshots_and_says_when_the_process_has_gone(start: Start) -> None:
    ui = start()
    cookie = log_in(ui)
    (process,) = json.loads(ask(ui, "/processes", Cookie=cookie)[2])
    assert process == {"pid": ui.crowd.pid, "program": "crowd"}
    first, second = events(ui, cookie, process["pid"], 2)
    assert first[0] == second[0] == "snapshot"
    assert len(first[1]["channels"]) >= 12 and len(first[1]["actors"]) == 30
    assert sum(c["total_sent"] for c in second[1]["channels"]) >= sum(c["total_sent"] for c in first[1]["channels"])
    assert ask(ui, "/events?pid=1", Cookie=cookie)[0] == 404

    connection = http.client.HTTPConnection(urlsplit(ui.origin).netloc, timeout=20)
    connection.request("GET", f"/events?pid={process['pid']}&period=100", headers={"Cookie": cookie})
    answer = connection.getresponse()
    assert answer.readline() == b"event: snapshot\n"
    ui.crowd.kill()
    ui.crowd.wait()
    lines = [line for line in answer if line.startswith((b"event: gone", b'data: {"why"'))]
    assert lines[-2:][0] == b"event: gone\n"


SAMPLE = re.compile(r'^([a-z_]+)\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*)\} (-?\d+(?:\.\d+)?)$')


def test_metrics_are_in_prometheus_text_format(start: Start, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("a" * 32 + "\n")
    secret.chmod(0o600)
    ui = start(5, 3, "--metrics-token", str(secret))
    assert ask(ui, "/metrics", Authorization="Bearer " + "b" * 32)[0] == 403
    assert ask(ui, "/", Authorization="Bearer " + "a" * 32)[0] == 403
    status, headers, body = ask(ui, "/metrics", Authorization="Bearer " + "a" * 32)
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    types: dict[str, str] = {}
    samples: dict[str, list[float]] = {}
    for line in body.decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in types, "a family is one block"
            types[name] = kind
        elif not line.startswith("# HELP "):
            match = SAMPLE.match(line)
            assert match, line
            assert match[1] in types and list(types)[-1] == match[1]
            assert f'pid="{ui.crowd.pid}"' in match[2]
            samples.setdefault(match[1], []).append(float(match[3]))
    assert len(samples["klaw_channel_depth"]) >= 5 and len(samples["klaw_actor_mailbox"]) == 3
    assert all(kind == ("counter" if name.endswith("_total") else "gauge") for name, kind in types.items())
    assert samples["klaw_actors"] == [3]


def test_a_token_that_others_may_read_is_refused(command: Path, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("a" * 32 + "\n")
    for mode in (0o640, 0o604, 0o620):
        secret.chmod(mode)
        done = subprocess.run(
            [command, "ui", "--metrics-token", secret], capture_output=True, text=True, timeout=20, check=False
        )
        assert done.returncode == 2 and f"chmod 600 {secret}" in done.stderr and not done.stdout


def test_who_shows_no_cookie_is_not_waited_for(start: Start) -> None:
    ui = start()
    cookie = log_in(ui)
    host, port = urlsplit(ui.origin).netloc.split(":")
    kept = http.client.HTTPConnection(host, int(port), timeout=20)
    kept.request("GET", "/processes", headers={"Cookie": cookie})
    assert kept.getresponse().read()
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        while connection.recv(4096):  # it may tell why first
            pass
    kept.request("GET", "/processes", headers={"Cookie": cookie})
    assert kept.sock is not None and kept.getresponse().status == 200  # who has shown one may be silent
    kept.close()


CROWD = """
import socket, sys, time
host, port, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
made = [socket.create_connection((host, port), timeout=20) for _ in range(n)]
for each in made[-1:]:
    assert each.recv(1) == b""  # refused
for each in made:
    each.setblocking(False)
def is_open(each):
    try:
        return each.recv(1) != b""
    except BlockingIOError:
        return True
print(sum(map(is_open, made)), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_other_users_can_not_take_all_places(start: Start) -> None:
    ui = start()
    host, port = urlsplit(ui.origin).netloc.split(":")
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", CROWD, host, port, "60"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, user=65534, cwd="/",
    ) as other:  # fmt: skip
        assert other.stdout and int(other.stdout.readline()) == 16
        cookie = log_in(ui)
        with contextlib.ExitStack() as mine:
            for _ in range(40):
                mine.enter_context(socket.create_connection((host, int(port)), timeout=20))
            assert ask(ui, "/processes", Cookie=cookie)[0] == 200
        other.communicate()


def test_rubbish_does_not_stop_it(start: Start) -> None:
    ui = start()
    cookie = log_in(ui)
    host, port = urlsplit(ui.origin).netloc.split(":")
    for rubbish in (
        b"\0" * 4096,
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: " + b"x" * 70_000,
        b"",
    ):
        with socket.create_connection((host, int(port)), timeout=20) as connection, contextlib.suppress(OSError):
            connection.sendall(rubbish)
    deadline = time.monotonic() + 20
    while ask(ui, "/processes", Cookie=cookie)[0] != 200:
        assert time.monotonic() < deadline
