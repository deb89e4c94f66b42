"""What each way in which sending a file can fail proves, tried on the wire.

The same table stands in `docs/reliability.md`, made from this one (`python3 dev.py generate`).
"""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal
from unittest import mock

from azure.core.exceptions import ServiceRequestError

from local import samples
from local.azurite import running_azurite
from local.simulator import Simulator, identity_settings, running_simulator
from shared import clock
from shared.d365 import D365, transport
from shared.d365.errors import D365Error, Denied, Rejected, Unavailable, Uncertain
from shared.identity import new_credential
from shared.storage import signed

type Verdict = Literal["unavailable", "denied", "rejected", "uncertain"]

VERDICTS: Final[dict[Verdict, type[D365Error]]] = {
    "unavailable": Unavailable,
    "denied": Denied,
    "rejected": Rejected,
    "uncertain": Uncertain,
}
FOLLOWS: Final[dict[Verdict, str]] = {
    "unavailable": "retried for up to a day",
    "denied": "retried for up to a day; alert",
    "rejected": "moved to failed",
    "uncertain": "held or resent, as the job says",
}
PACKAGE: Final = samples.package("Vendors", [samples.Part(samples.VENDORS, 1)])
IMPORT_ID: Final = "22222222-2222-4222-8222-222222222222"
GATEWAY: Final = '{"statusCode": 504, "message": "The request has timed out."}'
D365_ERROR: Final = '{"Message": "An error has occurred.", "ExceptionMessage": "Deadlock."}'
PAGE: Final = "<html><h1>The service is unavailable.</h1></html>"
LARGE: Final = 2_000_000
"""Lines of half a file that is more than all buffers hold, so that a reset meets it on its way."""


@dataclass(frozen=True)
class Case:
    """One way to fail."""

    what: str
    verdict: Verdict
    why: str
    fault: dict[str, Any] = field(default_factory=dict)
    """Of the simulator."""
    address: str = ""
    """Instead of a fault: a URL at which something other than D365 answers."""
    storage_fails: bool = False
    """Half of the file can be read, and no more."""
    lines: int = 100_000
    """Of each half of the file."""
    taken: int = 0
    """How often D365 has the file in truth, which the bridge can't know."""


def _answer(status: int, body: str = "", **headers: str) -> dict[str, Any]:
    answer_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"do": "answer", "status": status, "body": body, "headers": answer_headers}


NOTHING_SENT: Final = (
    Case("connection refused", "unavailable", "nothing was sent", address="refused"),
    Case("no connection in time", "unavailable", "nothing was sent", address="full"),
    Case("TLS handshake fails", "unavailable", "nothing was sent", address="tls"),
    Case(
        "no token to be had", "denied", "nothing was sent", {"operation": "token", **_answer(400)}
    ),
)
"""Whatever is asked of D365."""

CASES: Final = (
    *NOTHING_SENT,
    Case(
        "storage does not give all of the file",
        "unavailable",
        "the body is shorter than announced, so D365 does not process it",
        storage_fails=True,
    ),
    Case(
        "reset before all of the body was handed over",
        "unavailable",
        "the body is shorter than announced, so D365 does not process it",
        {"do": "reset"},
        lines=LARGE,
    ),
    Case(
        "the same while it is read",
        "unavailable",
        "the body is shorter than announced, so D365 does not process it",
        {"do": "reset-during", "bytes": 1},
        lines=LARGE,
    ),
    Case(
        "reset of a small file before it is answered",
        "uncertain",
        "the whole file was handed to the network; D365 may have taken it",
        # By when the simulator has the last half, both were handed over. A reset before the body is read
        # could come between the two.
        {"do": "reset-during", "bytes": 14},
        lines=1,
    ),
    Case(
        "reset after the body",
        "uncertain",
        "D365 may have taken it",
        {"do": "reset-after"},
        taken=1,
    ),
    Case("no answer in time", "uncertain", "the body was sent", {"do": "hang", "seconds": 3}),
    Case(
        "302, a redirect",
        "denied",
        "a sign-in page takes no file, and something else than D365 answers",
        _answer(302, PAGE),
    ),
    Case("400", "rejected", "D365 says what is wrong with it", _answer(400, D365_ERROR)),
    Case("401, with a new token too", "denied", "D365 refuses the sender", _answer(401)),
    Case("403", "denied", "D365 refuses the sender", _answer(403, D365_ERROR)),
    Case(
        "404 in D365's own words",
        "rejected",
        "there is no such recurring job",
        _answer(404, D365_ERROR),
    ),
    Case("404 with a page", "denied", "something else than D365 answers", _answer(404, PAGE)),
    Case("404 with nothing", "denied", "it is not known who answered", _answer(404)),
    Case("405 with a page", "denied", "something else than D365 answers", _answer(405, PAGE)),
    Case("408", "unavailable", "the request was not received whole", _answer(408)),
    Case("409", "rejected", "D365 rejects it", _answer(409, D365_ERROR)),
    Case("415", "rejected", "D365 does not take such a file", _answer(415, D365_ERROR)),
    Case(
        "413", "rejected", "too large: D365 will never take it in one request", _answer(413, PAGE)
    ),
    Case(
        "413 that breaks off",
        "rejected",
        "the status alone says that it is too large",
        _answer(413, "<html>Request", Content_Length="500"),
    ),
    Case("429", "unavailable", "D365 refuses requests for now", _answer(429, Retry_After="1")),
    Case(
        "500 with an error in D365's form",
        "uncertain",
        "D365 may have failed after it had taken the file",
        {**_answer(500, D365_ERROR), "do": "answer-after"},
        taken=1,
    ),
    Case(
        "500 with a gateway's own error",
        "uncertain",
        "the gateway does not know what D365 did",
        {**_answer(500, GATEWAY), "do": "answer-after"},
        taken=1,
    ),
    Case(
        "500 before all of the body was handed over",
        "unavailable",
        "the body is shorter than announced, so D365 does not process it",
        address="early",
        lines=LARGE,
    ),
    Case("500 with a page", "uncertain", "it is not known who answered", _answer(500, PAGE)),
    Case(
        "502",
        "uncertain",
        "a gateway lost the answer; D365 may have taken it",
        {**_answer(502, PAGE), "do": "answer-after"},
        taken=1,
    ),
    Case(
        "503 with an error in JSON",
        "uncertain",
        "a gateway may answer so after it has passed the file on",
        {**_answer(503, D365_ERROR), "do": "answer-after"},
        taken=1,
    ),
    Case(
        "503 with Retry-After",
        "uncertain",
        "a gateway may answer so after it has passed the file on",
        {**_answer(503, PAGE, Retry_After="1"), "do": "answer-after"},
        taken=1,
    ),
    Case("503 with a page", "uncertain", "it is not known who answered", _answer(503, PAGE)),
    Case(
        "504",
        "uncertain",
        "a gateway stopped waiting; D365 may have taken it",
        {**_answer(504, PAGE), "do": "answer-after"},
        taken=1,
    ),
    Case(
        "502 or 504 with an error in JSON",
        "uncertain",
        "the gateway does not know what D365 did",
        {**_answer(504, D365_ERROR), "do": "answer-after"},
        taken=1,
    ),
    Case(
        "502 or 504 with Retry-After",
        "uncertain",
        "the gateway does not know what D365 did",
        {**_answer(502, PAGE, Retry_After="1"), "do": "answer-after"},
        taken=1,
    ),
    Case(
        "200 with nothing",
        "uncertain",
        "there is no message id, whether D365 has taken it or not",
        {**_answer(200), "do": "answer-after"},
        taken=1,
    ),
    Case(
        "200 with rubbish",
        "uncertain",
        "there is no message id, whether D365 has taken it or not",
        {**_answer(200, PAGE), "do": "answer-after"},
        taken=1,
    ),
    Case(
        "200 with an error and a GUID",
        "uncertain",
        "the GUID may be that of the error, so there is no message id",
        {
            **_answer(200, '{"error": "no", "id": "94840019-0000-4000-8000-000000000001"}'),
            "do": "answer-after",
        },
        taken=1,
    ),
    Case(
        "200 that breaks off",
        "uncertain",
        "there is no message id, whether D365 has taken it or not",
        {**_answer(200, '"1234', Content_Length="38"), "do": "answer-after"},
        taken=1,
    ),
)


PACKAGE_FOLLOWS: Final[dict[Verdict, str]] = {
    **FOLLOWS,
    "rejected": "D365 is asked for the execution; if it has none, moved to failed",
    "uncertain": "D365 is asked for the execution; if it has not known it for an hour, resent under the "
    "same id",
}
ACTION_ERROR: Final = '{"error": {"code": "", "message": "x", "innererror": {"message": "No."}}}'
PACKAGE_CASES: Final = (
    *NOTHING_SENT,
    Case("reset before the answer", "uncertain", "D365 may have begun", {"do": "reset"}),
    Case("reset after D365 took it", "uncertain", "D365 has it", {"do": "reset-after"}, taken=1),
    Case(
        "no answer in time",
        "uncertain",
        "D365 continues when its client leaves",
        {"do": "hang", "seconds": 3},
    ),
    Case("400", "rejected", "D365 says what is wrong with it", _answer(400, ACTION_ERROR)),
    Case(
        "400 although D365 took it",
        "rejected",
        "D365 rejects an id that it has; it knows the execution when it is asked for it",
        {**_answer(400, ACTION_ERROR), "do": "answer-after"},
        taken=1,
    ),
    Case("401, with a new token too", "denied", "D365 refuses the sender", _answer(401)),
    Case("403", "denied", "D365 refuses the sender", _answer(403, ACTION_ERROR)),
    Case("302, a redirect", "denied", "something else than D365 answers", _answer(302, PAGE)),
    Case("404 with a page", "denied", "something else than D365 answers", _answer(404, PAGE)),
    Case("404 in D365's own words", "rejected", "D365 rejects it", _answer(404, ACTION_ERROR)),
    Case("408", "unavailable", "the request was not received whole", _answer(408)),
    Case("409", "rejected", "D365 rejects it", _answer(409, ACTION_ERROR)),
    Case("413", "rejected", "something on the way takes no such request", _answer(413, PAGE)),
    Case("429", "unavailable", "D365 refuses requests for now", _answer(429, Retry_After="1")),
    Case(
        "503 with Retry-After",
        "uncertain",
        "a gateway may answer so after it has passed the request on",
        {**_answer(503, PAGE, Retry_After="1"), "do": "answer-after"},
        taken=1,
    ),
    Case(
        "500, 502, 503, 504",
        "uncertain",
        "D365 may have begun before this answer",
        {**_answer(504, GATEWAY), "do": "answer-after"},
        taken=1,
    ),
    Case(
        "200 with a page",
        "uncertain",
        "something else than D365 answers",
        {**_answer(200, PAGE), "do": "answer-after"},
        taken=1,
    ),
    Case(
        "200 without an execution id",
        "uncertain",
        "there is no id, whether D365 has taken it or not",
        {**_answer(200, '{"value": ""}'), "do": "answer-after"},
        taken=1,
    ),
)
"""Of ImportFromPackage and ExportToPackage. The execution's id is there before the request, so none leaves a
file or an export in doubt."""


@dataclass(frozen=True)
class Tried:
    """What came of a case."""

    case: Case
    operation: str
    verdict: str
    taken: int
    violation: str


def tried() -> Iterator[Tried]:
    """Each case, tried with a file or a package that is sent for real."""
    with (
        running_azurite() as azurite,
        running_simulator() as simulator,
        quick(),
        _identity(simulator),
    ):
        simulator.use_storage(azurite.connection_string)
        for case in CASES:
            yield one(case, simulator)
        for case in PACKAGE_CASES:
            yield one_import(case, simulator)
            yield one_export(case, simulator)


def one(case: Case, simulator: Simulator) -> Tried:
    """One case of a file that is enqueued."""
    half = b"1;2;3\r\n" * case.lines

    def body() -> Iterator[bytes]:
        yield half
        if case.storage_fails:
            raise ServiceRequestError("storage")
        yield half

    def send(client: D365) -> None:
        client.enqueue(
            IMPORT_ID,
            body,
            2 * len(half),
            entity="General journal",
            company="USMF",
            external_id="may.csv",
        )

    return _try(case, "enqueue", simulator, send)


def one_import(case: Case, simulator: Simulator) -> Tried:
    """One case of a package that is imported."""
    simulator.reset()
    url = simulator.package_url("a.zip", "rw")
    signed.upload(signed.client(url), iter([PACKAGE]))

    def send(client: D365) -> None:
        client.packages.import_package(
            url, "Vendors in", "one", execute=True, overwrite=True, company="USMF"
        )

    return _try(case, "import_package", simulator, send)


def one_export(case: Case, simulator: Simulator) -> Tried:
    """One case of a data project that is exported."""

    def ask(client: D365) -> None:
        client.packages.export_package("Vendors", "one", re_execute=False, company="USMF")

    return _try(case, "export_package", simulator, ask)


def _try(case: Case, operation: str, simulator: Simulator, send: Callable[[D365], None]) -> Tried:
    simulator.reset()
    simulator.add_import_job(IMPORT_ID)
    simulator.projects["Vendors"] = "plain"
    if case.fault:
        simulator.add_fault(**{"operation": operation, "times": -1, **case.fault})
    with address(case.address, simulator) as url:
        verdict = "accepted"
        try:
            send(D365(url, new_credential))
        except D365Error as error:
            verdict = next(name for name, kind in VERDICTS.items() if type(error) is kind)
    taken = len(simulator.received) or len(simulator.executions)
    wrong = []
    if verdict != case.verdict:
        wrong.append(f"should be {case.verdict}")
    if taken != case.taken:
        wrong.append(f"D365 should have it {case.taken}x")
    return Tried(case, operation, verdict, taken, "; ".join(wrong))


@contextmanager
def quick() -> Iterator[None]:
    """No waiting between attempts, and little for an answer."""
    with (
        mock.patch.object(clock, "sleep"),
        mock.patch.multiple(transport, CONNECT_TIMEOUT=0.5, READ_TIMEOUT=1.0, FILE_TIMEOUT=1.0),
    ):
        yield


@contextmanager
def _identity(simulator: Simulator) -> Iterator[None]:
    with mock.patch.dict("os.environ", identity_settings(simulator)):
        yield


@contextmanager
def address(kind: str, simulator: Simulator) -> Iterator[str]:
    """Where D365 is thought to be."""
    if not kind:
        yield simulator.base_url
        return
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        scheme = "http"
        waiting: list[socket.socket] = []
        if kind == "full":  # a queue of connections in which there is no room
            listener.listen(0)
            for _ in range(4):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
                waiting.append(one)
        elif kind in ("tls", "early"):
            listener.listen()
            threading.Thread(target=_answer_early, args=(listener,), daemon=True).start()
            scheme = "https" if kind == "tls" else "http"
        try:
            yield f"{scheme}://127.0.0.1:{port}"
        finally:
            for one in waiting:
                one.close()


def _answer_early(listener: socket.socket) -> None:
    """Answer each connection in plain HTTP with an error, whatever more would come."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")


def markdown(
    cases: Iterable[Case] = CASES, follows: Mapping[Verdict, str] = MappingProxyType(FOLLOWS)
) -> str:
    """A table for the docs."""
    lines = ["| what happens | it proves | because | then |", "| --- | --- | --- | --- |"]
    for case in cases:
        sure = "nothing" if case.verdict == "uncertain" or case.taken else "not taken"
        lines.append(f"| {case.what} | {sure} | {case.why} | {follows[case.verdict]} |")
    return "\n".join(lines)
