"""Puts faults between a worker process and what it calls: every request is counted, and can be its last.

`BRIDGE_FAULTS` says what to do, as JSON:

- `{"record": FILE}`: write each request as a line of JSON, those of all workers of the host into one file;
- also `{"kill": REQUEST, "nth": N, "when": "before" | "after"}`: end the host and this process by SIGKILL
  around the Nth request of that description (those made side by side come in any order: a plain number would
  name another each time);
- `{"seed": N, "rate": R}`: of R of all requests to storage, break the connection before or after it;
- `{"byStorage": N}`: let storage itself move packages of N bytes and more of the package API, in such blocks;
- `{"ahead": S}`: let the app's clock be S seconds ahead, as after an outage of so long.

All clients of the app go through urllib3, and no one else in this process uses it.
"""

import fcntl
import json
import os
import random
import re
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ProtocolError

from shared import clock
from shared.exports import data_project
from shared.imports import execution, schedule
from shared.storage import block_copy

_GUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32}")
_STAMP = re.compile(r"[.-]\d{8}T\d{6}Z-(?:[0-9a-f]{12}|[0-9a-f]{8})")
_HOUR = re.compile(r"\d{4}/\d\d/\d\d/\d\d")


def described(method: str, url: str) -> str:
    """A request as a person reads it: without ids, stamps and signatures."""
    parts = urlsplit(url)
    path = unquote(parts.path).replace("Microsoft.Dynamics.DataEntities.", "")
    path = re.sub(r"^/(devstoreaccount1|case\d+)/", "", path)
    path = _HOUR.sub("{hour}", _STAMP.sub("", _GUID.sub("{id}", path)))
    comp = re.search(r"(?:^|&)comp=(\w+)", parts.query)
    return f"{method} {path}" + (f" ({comp[1]})" if comp else "")


class FaultProxy:
    """Counts the app's requests and does what was asked."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._random = random.Random(plan.get("seed"))
        self._urlopen = HTTPConnectionPool.urlopen

    def install(self) -> None:
        """Let every request of the process pass here."""
        proxy = self

        def urlopen(pool: HTTPConnectionPool, method: str, url: str, *args: Any, **kw: Any) -> Any:
            return proxy._pass(pool, method, url, args, kw)

        HTTPConnectionPool.urlopen = urlopen  # type: ignore[method-assign, assignment]
        if by_storage := self._plan.get("byStorage"):
            data_project.BY_STORAGE = by_storage  # type: ignore[misc]
            execution.BY_STORAGE = by_storage  # type: ignore[misc]
            block_copy.BLOCK = by_storage  # type: ignore[misc]
        if ahead := timedelta(seconds=self._plan.get("ahead", 0)):
            clock.now = lambda: datetime.now(UTC) + ahead

    def _pass(self, pool: Any, method: str, url: str, args: Any, kw: Any) -> Any:
        request = described(method, url)
        with self._lock:
            nth, chance = self._count(request), self._random.random()
        self._perhaps_die(request, nth, "before")
        rate = float(self._plan.get("rate", 0)) if "/api/" not in url and "/data/" not in url else 0
        if chance < rate / 2:
            raise ProtocolError("Connection aborted.", ConnectionResetError("broken by the test"))
        answer = self._urlopen(pool, method, url, *args, **kw)
        if rate / 2 <= chance < rate:
            answer.close()
            raise ProtocolError("Connection aborted.", ConnectionResetError("broken by the test"))
        self._perhaps_die(request, nth, "after")
        return answer

    def _count(self, request: str) -> int:
        """The how manieth of its description it is, over all workers."""
        if "record" not in self._plan:
            return 0
        line = json.dumps(request)
        with Path(self._plan["record"]).open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(line + "\n")
            file.flush()
            file.seek(0)
            return file.read().splitlines().count(line)

    def _perhaps_die(self, request: str, nth: int, when: str) -> None:
        plan = self._plan
        if (plan.get("kill"), plan.get("nth"), plan.get("when")) == (request, nth, when):
            os.killpg(0, signal.SIGKILL)  # the host and all of its workers


def install() -> None:
    """Let every request of this process pass here, and let no status check wait for long: it may come at any
    time (S2), and a crash is waited for."""
    schedule.check_delay = lambda checks: timedelta(seconds=1)
    FaultProxy(json.loads(os.environ["BRIDGE_FAULTS"])).install()
