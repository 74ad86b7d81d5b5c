# SPDX-License-Identifier: Apache-2.0
"""How a process joins a Ray cluster, or starts one, within a time limit.

``ray.init`` by itself waits for minutes for an address where nobody listens, and has no limit of its own. Here the
address is tried by TCP first, then the cluster's version and token are asked for, and ``ray.init`` runs on a thread
that is not waited for longer than the limit. Importing this module does not import Ray.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from klaw_core.runtime._config import Backend, get_config
from klaw_core.runtime.errors import BackendErrorException

__all__ = ["CONNECT_TIMEOUT", "DEFAULT_RUNTIME_ENV_EXCLUDES", "default_namespace", "ensure_ray", "import_ray"]

#: seconds for joining a cluster that runs
CONNECT_TIMEOUT = 30.0
#: seconds for starting one on this machine, which is many processes
START_TIMEOUT = 120.0

#: what a working_dir never takes to the workers: their Python and Ray would be shadowed by the driver's
DEFAULT_RUNTIME_ENV_EXCLUDES: tuple[str, ...] = (
    ".git/",
    ".venv/",
    "venv/",
    "**/__pycache__/",
    ".mypy_cache/",
    ".pytest_cache/",
    ".ruff_cache/",
    "build/",
    "dist/",
    "node_modules/",
    "*.egg-info/",
)

_lock = threading.Lock()
_joined = ("", "")  # the address that this process joined by, and what Ray calls it
_late: threading.Thread | None = None  # a ray.init that was given up and has not returned


def import_ray() -> Any:
    """The module ray. BackendErrorException when it is not installed."""
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise BackendErrorException(
            f"the Ray backend can't be loaded ({error}); install it by: pip install 'klaw-core[ray]'", "ray"
        ) from error


def default_namespace() -> str:
    """Where names are when nobody says: KLAW_RAY_NAMESPACE, else "klaw"."""
    return os.environ.get("KLAW_RAY_NAMESPACE") or "klaw"


def _configured(key: str) -> Any:
    config = get_config()
    return config.backend_kwargs.get(key) if config.backend is Backend.RAY else None


def ensure_ray(
    address: str | None = None, namespace: str | None = None, timeout: float | None = None, **options: Any
) -> Any:
    """Makes sure that this process is connected to Ray, and returns the module. Where it is already, nothing happens;
    but to ask for another cluster's address is an error.

    address: "host:port" of a cluster, "auto" (one that runs on this machine), "local" (start one here); None: that of
    ``init(backend="ray", address=...)``, else RAY_ADDRESS, else the last one started by ``ray start`` on this machine,
    else one is started. namespace: of names (None: the configured one, KLAW_RAY_NAMESPACE, "klaw"). timeout: seconds
    for all of it (None: 30, or 120 where a cluster has to be started). options: for ray.init. Blocks; thread-safe.

    Errors: BackendErrorException, with what to do, when Ray is not installed, nobody answers at the address, the token
    is refused, the versions of Ray differ, or the time is over; ValueError for a malformed address.
    """
    ray = import_ray()
    with _lock:
        if ray.is_initialized():
            _same(ray, address)
        else:
            _connect(ray, address or _configured("address"), namespace or _configured("namespace"), timeout, options)
    return ray


def _same(ray: Any, address: str | None) -> None:
    """Whether a process that is connected is where it is asked to be."""
    if address is None or address in ("auto", "local") or address.startswith("ray://"):
        return
    now: str = ray.get_runtime_context().gcs_address
    if _joined != (address, now) and not _same_place(now, address):
        raise BackendErrorException(
            f"this process is connected to Ray at {now}, not at {address}: one process joins one cluster", "ray"
        )


def _same_place(one: str, other: str) -> bool:
    """Whether two addresses are of one cluster: of one port, and of hosts that have an address in common. A host has
    many names, and this one many addresses: all of its own are one."""
    (one_host, one_port), (other_host, other_port) = _split(one), _split(other)
    if one_port != other_port:
        return False
    return one_host == other_host or not _places(one_host).isdisjoint(_places(other_host))


def _places(host: str) -> set[str]:
    """The addresses of a host, those of this node as "". Empty: nobody knows it."""
    places = set()
    try:
        for family, kind, proto, _name, where in socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM):
            with contextlib.suppress(OSError), socket.socket(family, kind, proto) as probe:
                places.add(str(where[0]))
                probe.bind(where)  # nobody can but at a node of its own
                places.add("")
    except OSError:
        pass
    return places


def _connect(ray: Any, address: str | None, namespace: str | None, timeout: float | None, options: Any) -> None:
    global _late, _joined  # noqa: PLW0603
    if _late is not None and _late.is_alive():
        raise BackendErrorException("an earlier connection to Ray was given up and has not ended: try later", "ray")
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout has to be more than 0 seconds, not {timeout!r}")
    begun = time.monotonic()
    where = _resolve(address)
    limit = timeout if timeout is not None else START_TIMEOUT if where is None else CONNECT_TIMEOUT

    def left() -> float:
        return max(0.05, begun + limit - time.monotonic())

    if where is not None:
        _probe(where, limit, left())
    options = {"logging_level": "ERROR", **options}
    if where is None:
        options.setdefault("include_dashboard", False)

    def connect() -> None:
        if where is not None and not where.startswith("ray://"):
            _check(ray, where, left())
        ray.init(address=where or "local", namespace=namespace or default_namespace(), **options)

    attempt = _Attempt(connect, stay=where is None)
    if not attempt.over.wait(left()):
        _late = attempt.thread
        raise BackendErrorException(
            f"{'Ray at ' + where if where else 'a local Ray'} did not get ready within {limit:g} s;"
            " look at its logs (/tmp/ray/session_latest/logs), or give it more time by timeout=",
            "ray",
        )
    if attempt.error is not None:
        raise _explained(attempt.error, where) from attempt.error
    if where is not None and not where.startswith("ray://"):
        _joined = (where, ray.get_runtime_context().gcs_address)


class _Attempt:
    """A call on a thread of its own. stay: the thread stays when it went well, until the next one does: the processes
    of a local Ray are killed when the thread that started them ends, not only when the process does."""

    _keeper: threading.Event | None = None

    def __init__(self, function: Callable[[], None], stay: bool) -> None:
        self.over = threading.Event()
        self.error: Exception | None = None
        self._function = function
        self._stay = stay
        self.thread = threading.Thread(target=self._run, name="klaw-ray-connect", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._function()
        except Exception as error:
            self.error = error
        leave = threading.Event()
        if self._stay and self.error is None:
            before, _Attempt._keeper = _Attempt._keeper, leave
            if before is not None:  # of a Ray that was shut down
                before.set()
            self.over.set()
            leave.wait()
        self.over.set()


def _resolve(address: str | None) -> str | None:
    """host:port to connect to, or None to start a cluster."""
    given = address or os.environ.get("RAY_ADDRESS") or None
    if given == "local":
        return None
    if given is None or given == "auto":
        services = importlib.import_module("ray._private.services")
        found: str | None = services.canonicalize_bootstrap_address(given) if given else None
        if given is None:
            found = _last_started()
        return found
    _split(given)
    return given


def _last_started() -> str | None:
    """The cluster that `ray start` started last on this machine, if somebody is there."""
    utils = importlib.import_module("ray._private.utils")
    found: str | None = utils.read_ray_address()
    if not found:
        return None
    try:
        _probe(found, 2.0, 2.0)
    except BackendErrorException:
        return None  # the record of one that has ended
    return found


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"a Ray address is 'host:port', 'auto' or 'local', not {address!r}")
    return host.strip("[]"), int(port)


def _probe(address: str, limit: float, left: float) -> None:
    """Whether anybody listens there."""
    try:
        socket.create_connection(_split(address), timeout=left).close()
    except OSError as error:
        raise BackendErrorException(
            f"nobody answers at {address} within {limit:g} s ({error}); is the cluster up (ray start --head)"
            " and the address right (address=, RAY_ADDRESS)?",
            "ray",
        ) from error


def _check(ray: Any, address: str, limit: float) -> None:
    """Asks the cluster for its version: a wrong token or version is told now and not after minutes."""
    try:
        raylet = importlib.import_module("ray._raylet")
        usage = importlib.import_module("ray._common.usage.usage_lib")
        client = raylet.GcsClient(address=address)
        metadata = usage.get_cluster_metadata(client)
    except (ImportError, AttributeError, TypeError):  # another Ray than those this was tried with: ray.init will tell
        return
    theirs = (metadata or {}).get("ray_version")
    if theirs and theirs != ray.__version__:
        raise BackendErrorException(
            f"the cluster at {address} runs Ray {theirs}, this process has {ray.__version__};"
            f" install the same: pip install ray=={theirs}",
            "ray",
        )


def _explained(error: Exception, where: str | None) -> BackendErrorException:
    """The same error with what to do about it."""
    if isinstance(error, BackendErrorException):
        return error
    place = f"Ray at {where}" if where else "a local Ray"
    text = str(error)
    if type(error).__name__ == "AuthenticationError" or "uthenticat" in text or "nauthenticated" in text:
        return BackendErrorException(
            f"{place} refuses the token ({text.splitlines()[0]}); set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or"
            " RAY_AUTH_TOKEN_PATH to the cluster's (ray get-auth-token there)",
            "ray",
        )
    if "ersion mismatch" in text:
        return BackendErrorException(f"{place} has another version: {text}; install the same Ray and Python", "ray")
    return BackendErrorException(f"{place} could not be joined: {type(error).__name__}: {text}", "ray")
