"""The trigger host with a hand on the wire: every request of the app is counted, and can be its last.

`python -m tests.faults.wire ...` takes the arguments of `local.host`. `BRIDGE_WIRE` says what to do, as JSON:

- `{"record": FILE}`: write each request as a line of JSON;
- `{"kill": REQUEST, "nth": N, "when": "before" | "after"}`: end the process by SIGKILL around the Nth request
  of that description (those made side by side come in any order: a plain number would name another each time);
- `{"seed": N, "rate": R}`: of R of all requests to storage, break the connection before or after it.

All clients go through urllib3. The host lives in the same process, and its own requests are left alone: those
of its own clients, known by their `User-Agent`. All others are the app's, on whatever thread they are made.
"""

import json
import os
import random
import re
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ProtocolError

from local.host import main
from local.host.storage import USER_AGENT

_GUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32}")
_STAMP = re.compile(r"\.\d{8}T\d{6}Z-[0-9a-f]{8}")
_HOUR = re.compile(r"\d{4}/\d\d/\d\d/\d\d")


def is_hosts(headers: Any) -> bool:
    """Whether a request with these headers is the host's own, and not the app's."""
    return str((headers or {}).get("User-Agent", "")).startswith(USER_AGENT)


def described(method: str, url: str) -> str:
    """A request as a person reads it: without ids, stamps and signatures."""
    parts = urlsplit(url)
    path = unquote(parts.path).replace("Microsoft.Dynamics.DataEntities.", "")
    path = re.sub(r"^/(devstoreaccount1|case\d+)/", "", path)
    path = _HOUR.sub("{hour}", _STAMP.sub("", _GUID.sub("{id}", path)))
    comp = re.search(r"(?:^|&)comp=(\w+)", parts.query)
    return f"{method} {path}" + (f" ({comp[1]})" if comp else "")


class Wire:
    """Counts the app's requests and does what was asked."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._random = random.Random(plan.get("seed"))
        self._urlopen = HTTPConnectionPool.urlopen

    def install(self) -> None:
        """Let every request of the process pass here."""
        wire = self

        def urlopen(pool: HTTPConnectionPool, method: str, url: str, *args: Any, **kw: Any) -> Any:
            if is_hosts(kw.get("headers", args[1] if len(args) > 1 else None)):
                return wire._urlopen(pool, method, url, *args, **kw)
            return wire._pass(pool, method, url, args, kw)

        HTTPConnectionPool.urlopen = urlopen  # type: ignore[method-assign, assignment]

    def _pass(self, pool: Any, method: str, url: str, args: Any, kw: Any) -> Any:
        request = described(method, url)
        with self._lock:
            self._counts[request] += 1
            nth, chance = self._counts[request], self._random.random()
            if "record" in self._plan:
                with Path(self._plan["record"]).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(request) + "\n")
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

    def _perhaps_die(self, request: str, nth: int, when: str) -> None:
        plan = self._plan
        if (plan.get("kill"), plan.get("nth"), plan.get("when")) == (request, nth, when):
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Wire(json.loads(os.environ["BRIDGE_WIRE"])).install()
    code = main()
    sys.stdout.flush()
    os._exit(code)
