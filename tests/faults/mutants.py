"""One-line breaks of the invariants, each with the tests that must go red: proof that those can fail.

A copy of the project is broken, and the tests named are run in it. `dev.py faults` shows all.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """A break: in `file`, `old` (which stands there once) becomes `new`; `test` must find it."""

    invariant: str
    file: str
    old: str
    new: str
    test: str
    """Files, as seen from tests/shared, and perhaps ` -k` and what to choose of them."""


MUTANTS: Final = (
    Mutant(
        "E1 acknowledged before it is committed",
        "shared/exports/package.py",
        "            with deadline.within(seconds):\n",
        "            acknowledge()\n            with deadline.within(seconds):\n",
        "exports -k not_whole_is_never_acknowledged",
    ),
    Mutant(
        "E1 the announced length is not checked",
        "shared/exports/package.py",
        "    if download.length not in (None, length):\n",
        "    if False:\n",
        "exports -k another_length",
    ),
    Mutant(
        "E1 whatever fails our check is taken at once",
        "shared/exports/package.py",
        "            if not twice or (format_.zipped and download.length is None):\n",
        "            if False:\n",
        "exports -k differs_between_two",
    ),
    Mutant(
        "E1 a message is acknowledged for another one under its id",
        "shared/exports/run.py",
        "(message.correlation_id, message.download_location) if message",
        '(message.correlation_id, "") if message',
        "exports -k two_messages_under_one_id",
    ),
    Mutant(
        "E2 a package overwrites another",
        "shared/storage/transfer.py",
        "blob.commit_block_list(blocks, match_condition=missing, **options)",
        "blob.commit_block_list(blocks, **options)",
        "storage/test_transfer.py -k other_bytes",
    ),
    Mutant(
        "E2 the second blob has a constant name",
        "shared/exports/package.py",
        "return _fetch(serving, None, error.digest.sha256)",
        'return _fetch(serving, None, "0" * 64)',
        "exports -k other_bytes_is_a_second_blob",
    ),
    Mutant(
        "E2 the newest pop receipt is never tried",
        "shared/exports/run.py",
        "                if newest is not offer:\n",
        "                if False:\n",
        "exports -k offered_again_is_waited_for",
    ),
    Mutant(
        "E2 a newer pop receipt does not replace the one before",
        "shared/exports/run.py",
        "queue.serving[key], queue.reoffers = message, True",
        "queue.reoffers = True",
        "exports -k newest_is_good",
    ),
    Mutant(
        "E2 no dequeue that is under way is waited for",
        "shared/exports/run.py",
        "self._lock.wait_for(lambda: queue.asking == 0, left)",
        "pass",
        "exports -k offered_again_is_waited_for",
    ),
    Mutant(
        "E3 one package that fails ends its queue",
        "shared/exports/run.py",
        "                goes_on = True\n",
        "                goes_on = not queue.failed\n                queue.closed = not goes_on\n",
        "exports -k keeps_none_of_its_queue_waiting",
    ),
    Mutant(
        "E4 visible before it is checked",
        "shared/storage/transfer.py",
        "    everything = {**metadata, **verify(content)",
        "    _commit(blob, ids or head)\n    everything = {**metadata, **verify(content)",
        "storage/test_transfer.py -k nothing_is_visible_when_the_check_fails",
    ),
    Mutant(
        "E5 the acknowledgement is made anew",
        "shared/d365/client.py",
        'self._transport.call("acknowledge", "POST", path, message.body)',
        'self._transport.call("acknowledge", "POST", path, json.dumps(json.loads(message.body)).encode())',
        "exports -k queue_is_stored",
    ),
    Mutant(
        "E6 messages are taken whatever the time",
        "shared/exports/run.py",
        "            late = clock.monotonic() > self._take_until\n",
        "            late = False\n",
        "exports -k no_time_for",
    ),
    Mutant(
        "E6 blocks are read faster than they are written",
        "shared/storage/transfer.py",
        "                if len(pending) > PARALLEL:\n",
        "                if False:\n",
        "storage/test_transfer.py -k holds_a_few_blocks",
    ),
    Mutant(
        "E6 any number of large transfers at once",
        "shared/storage/transfer.py",
        "    with _a_place(), ExitStack() as stack:\n",
        "    with ExitStack() as stack:\n",
        "storage/test_transfer.py -k few_large_transfers",
    ),
    Mutant(
        "E6 a failed transfer leaves blocks that grow in number",
        "shared/storage/transfer.py",
        "        return _block_id(sha256.hexdigest(), number, length)\n",
        "        return _block_id(os.urandom(32).hex(), number, length)\n",
        "exports -k nothing_that_grows",
    ),
    Mutant(
        "E7 what was delivered is not noted",
        "shared/exports/package.py",
        "    deliveries.note_content(account, job.name, delivery)\n",
        "",
        "exports -k reader_has_taken_is_not",
    ),
    Mutant(
        "E7 what was unzipped is not noted",
        "shared/exports/package.py",
        "    deliveries.note_message(account, delivery)\n",
        "",
        "exports -k unzipped_files_that_a_reader",
    ),
    Mutant(
        "E8 re-offers do not end turns",
        "shared/exports/run.py",
        "queue.serving[key], queue.reoffers = message, True",
        "queue.serving[key] = message",
        "exports -k not_asked_for_by_every_turn",
    ),
    Mutant(
        "E8 a job waits for another job's packages",
        "shared/exports/run.py",
        "                if not without or short >= self._places:\n",
        "                if True:\n",
        "exports -k holds_up_no_other_job",
    ),
    Mutant(
        "E8 no queue is asked again while the run lasts",
        "shared/exports/run.py",
        "                    self._ask_again()\n",
        "",
        "exports -k 'holds_up_no_other_job or asked_again_while'",
    ),
    Mutant(
        "E8 what a run has no time for is not handed on",
        "shared/exports/run.py",
        "            self._hand_on(queue)\n",
        "",
        "exports -k handed_on",
    ),
    Mutant(
        "I1 claimed without the ETag",
        "shared/storage/blobs.py",
        "            source_etag=file.etag,\n"
        "            source_match_condition=MatchConditions.IfNotModified,\n",
        "",
        "imports/test_importing.py storage/test_blobs.py -k overwritten",
    ),
    Mutant(
        "I1 the name need not be free",
        "shared/storage/blobs.py",
        "            match_condition=MatchConditions.IfMissing,\n",
        "",
        "storage/test_blobs.py -k second_claim",
    ),
    Mutant(
        "I1 no intent is written before the file is sent",
        "shared/imports/importing.py",
        'state="sending", sender=',
        'state="claimed", sender=',
        "imports/test_importing.py -k leaves_its_intent",
    ),
    Mutant(
        "I1 a record is written whatever happened meanwhile",
        "shared/storage/blobs.py",
        "            _metadata(file, record),\n"
        "            etag=file.etag,\n"
        "            match_condition=MatchConditions.IfNotModified,\n",
        "            _metadata(file, record),\n",
        "storage/test_blobs.py -k updates",
    ),
    Mutant(
        "I2 a lost answer counts as a refusal",
        "shared/d365/transport.py",
        "            raise (Uncertain if reached else Unavailable)(",
        "            raise (Unavailable)(",
        "imports/test_importing.py -k answer_is_lost",
    ),
    Mutant(
        "I2 what is uncertain is sent again unasked",
        "shared/imports/importing.py",
        '    if job and job.when_uncertain == "resend":\n',
        "    if job:\n",
        "imports/test_importing.py -k answer_is_lost",
    ),
    Mutant(
        "I2 an answer of 500 counts as a refusal",
        "shared/d365/responses.py",
        "            return Uncertain\n        case _:\n",
        "            return Unavailable\n        case _:\n",
        "d365/test_client.py -k failed_send",
    ),
    Mutant(
        "I2 what was begun counts as handed over",
        "shared/d365/transport.py",
        "                self.handed_over = taken >= self._body.length\n",
        "                self.handed_over = True\n",
        "d365/test_client.py -k failed_send",
    ),
    Mutant(
        "I3 nothing looks for files without an event",
        "shared/imports/reconciliation.py",
        "    found = _dropped(bridge)\n",
        "    found = 0\n",
        "imports/test_reconciliation.py",
    ),
    Mutant(
        "I3 a file counts as overdue whatever was written to it last",
        "shared/imports/reconciliation.py",
        " and file.modified < latest:\n",
        ":\n",
        "imports/test_reconciliation.py -k worked_at",
    ),
    Mutant(
        "I4 moved without a look at the copy",
        "shared/storage/blobs.py",
        "    if _copy(account, file, container, file.name, record):\n",
        "    if _copy(account, file, container, file.name, record) or True:\n",
        "storage/test_blobs.py -k never_deletes",
    ),
    Mutant(
        "I5 nobody looks whether another file is under way",
        "shared/imports/importing.py",
        "        if any(_goes_before(job, file) for file in under_way):\n",
        "        if False:\n",
        "imports/test_order.py -k one_by_one",
    ),
    Mutant(
        "I1 what was claimed is sent beside the dropped version",
        "shared/imports/importing.py",
        "    if not blobs.release_source(bridge.account, file):\n        return\n    decided",
        "    decided",
        "imports/test_importing.py -k lets_the_dropped_version_go",
    ),
    Mutant(
        "I1 the same size counts as the same bytes",
        "shared/storage/blobs.py",
        "        return all(part == same for part, same in zip(*contents, strict=True))\n",
        "        return True\n",
        "storage/test_blobs.py -k bytes_say_whether",
    ),
    Mutant(
        "I1 the intent is written before there is a token",
        "shared/imports/importing.py",
        "    length = package.seek(0, SEEK_END) if package else file.size\n",
        "    file = _intend(bridge, file)\n"
        "    length = package.seek(0, SEEK_END) if package else file.size\n",
        "imports/test_importing.py -k only_waits",
    ),
    Mutant(
        "I3 a paused job's file is sent",
        "shared/imports/importing.py",
        "    elif job.enabled:\n        send(",
        "    else:\n        send(",
        "imports/test_importing.py -k claimed_file_of_a_paused_job",
    ),
    Mutant(
        "I3 a dropped file of a paused job is taken",
        "shared/imports/routing.py",
        "    if job and not job.enabled:\n",
        "    if False:\n",
        "imports/test_importing.py -k paused_job_leaves",
    ),
    Mutant(
        "I3 imports are given up after half an hour",
        "shared/imports/importing.py",
        "GIVE_UP: Final = timedelta(days=1)\n",
        "GIVE_UP: Final = timedelta(minutes=30)\n",
        "imports/test_importing.py -k waiting_has_an_end",
    ),
    Mutant(
        "I3 a file waits for a day between two tries",
        "shared/imports/importing.py",
        "LONGEST_DELAY: Final = timedelta(minutes=15)\n",
        "LONGEST_DELAY: Final = timedelta(days=1)\n",
        "imports/test_importing.py -k have_a_longest",
    ),
    Mutant(
        "I3 pauses and outages count as tries",
        "shared/imports/importing.py",
        "    until = min(clock.now(), clock.parse(due) + bridge.patience)\n",
        "    until = clock.now()\n",
        "imports/test_importing.py -k only_the_time_counts",
    ),
    Mutant(
        "I3 what is a minute late counts as missed",
        "shared/bridge.py",
        "        return self.settings.function_timeout / 6\n",
        "        return self.settings.function_timeout / 60\n",
        "imports/test_reconciliation.py -k not_missed_yet",
    ),
    Mutant(
        "I3 a blob with snapshots is left in imports",
        "shared/storage/blobs.py",
        '            delete_snapshots="include",\n',
        "",
        "storage/test_blobs.py -k snapshots",
    ),
    Mutant(
        "I4 a pending copy counts as whole",
        "shared/storage/blobs.py",
        '    if copy.copy_status != "success":\n',
        '    if copy.copy_status not in ("success", "pending"):\n',
        "storage/test_blobs.py -k trusts_no_copy",
    ),
    Mutant(
        "I4 a file is decoded on its way",
        "shared/storage/transfer.py",
        "            decompress=False,  # I4",
        "            decompress=True,  # I4",
        "imports/test_importing.py -k content_encoding",
    ),
    Mutant(
        "I5 an ordered job goes on while it is paused",
        "shared/imports/importing.py",
        "    while job.enabled and not _stopped(bridge, job):\n",
        "    while not _stopped(bridge, job):\n",
        "imports/test_importing.py -k claimed_file_of_a_paused_job",
    ),
    Mutant(
        "I7 an end is told before it is written down",
        "shared/imports/outcome.py",
        "    finish(account, blobs.update(account, file, record), error, d365)\n",
        "    finish(account, replace(file, record=record), error, d365)\n",
        "imports/test_notification.py -k another_worker_has_decided",
    ),
    Mutant(
        "I5 nobody looks again once the intent is written",
        "shared/imports/importing.py",
        "            if job.ordered and (_others_under_way(bridge, job, file) or _stopped(bridge, job)):\n",
        "            if False:\n",
        "imports/test_order.py -k keeps_its_place",
    ),
    Mutant(
        "S1 an unknown status counts as an end",
        "shared/d365/statuses.py",
        '.lower(), "unknown")\n',
        '.lower(), "failed")\n',
        "imports/test_advance.py -k unknown_status",
    ),
    Mutant(
        "S2 a status message counts whatever it was for",
        "shared/imports/advance.py",
        '    if file is None or file.etag != message.get("etag"):\n',
        "    if file is None:\n",
        "imports/test_advance.py -k repeated",
    ),
    Mutant(
        "S3 a file without a final status waits for ever",
        "shared/imports/advance.py",
        "    elif record.spent > GIVE_UP.total_seconds():\n",
        "    elif False:\n",
        "imports/test_advance.py -k no_final_status",
    ),
    Mutant(
        "S3 the checks do not back off",
        "shared/imports/importing.py",
        "    return timedelta(seconds=min(5 * 2**checks, 300))\n",
        "    return timedelta(seconds=5)\n",
        "imports/test_advance.py -k back_off",
    ),
    Mutant(
        "S3 status messages are visible at once",
        "shared/imports/importing.py",
        "        visibility_timeout=",
        "        visibility_timeout=0 * ",
        "imports/test_advance.py -k waits_its_time",
    ),
    Mutant(
        "S3 the life of a status message is limited",
        "shared/imports/importing.py",
        "        time_to_live=-1,\n",
        "",
        "imports/test_advance.py -k lives_for_ever",
    ),
    Mutant(
        "A1 the token goes to any host",
        "shared/d365/client.py",
        "        return absolute, False\n",
        "        return absolute, True\n",
        "d365/test_client.py -k d365_alone",
    ),
    Mutant(
        "A2 a wait that D365 asks for is not kept",
        "shared/d365/transport.py",
        "    asked = error.retry_after\n    seconds",
        "    asked = None\n    seconds",
        "d365/test_client.py -k how_long_to_wait",
    ),
    Mutant(
        "A3 texts are logged as they are",
        "shared/observability/telemetry.py",
        '"Bearer [redacted]" if m[3] else f"{m[1] or m[2]}=[redacted]", text\n',
        "m[0], text\n",
        "d365/test_client.py -k secret",
    ),
    Mutant(
        "A4 a zip entry may have any name",
        "shared/packages/unpack.py",
        '    if why:\n        raise InvalidPackage(f"the name of entry',
        '    if False:\n        raise InvalidPackage(f"the name of entry',
        "../packages/test_check.py -k hostile_name",
    ),
    Mutant(
        "A4 a correlation id is a path",
        "shared/storage/blobs.py",
        "    if _SAFE_ID.fullmatch(correlation_id):\n",
        "    if correlation_id:\n",
        "storage/test_names.py -k is_no_name",
    ),
    Mutant(
        "A6 a read has its time-out, whatever is left",
        "shared/connections.py",
        "        self._socket.settimeout(_in_time(self._timeout))\n",
        "        self._socket.settimeout(self._timeout)\n",
        "test_deadline.py -k dripping_dequeue",
    ),
    Mutant(
        "A6 a write has its time-out, whatever is left",
        "shared/connections.py",
        "settimeout(deadline.bounded(WRITE_TIMEOUT))",
        "settimeout(WRITE_TIMEOUT)",
        "test_deadline.py -k does_not_read",
    ),
    Mutant(
        "A6 a connect has its time-out, whatever is left",
        "shared/connections.py",
        "            self.timeout = _in_time(self.timeout)\n",
        "",
        "test_deadline.py -k not_made",
    ),
    Mutant(
        "A6 storage is tried again, whatever is left",
        "shared/connections.py",
        "    if seconds >= deadline.left():\n",
        "    if False:\n",
        "test_deadline.py -k busy",
    ),
    Mutant(
        "A6 D365 is tried again, whatever is left",
        "shared/d365/transport.py",
        " or seconds >= deadline.left():\n",
        ":\n",
        "test_deadline.py -k no_wait",
    ),
    Mutant(
        "A6 what D365 asks all to wait is waited, whatever is left",
        "shared/d365/transport.py",
        "        if seconds > min(LONGEST_WAIT, deadline.left()):\n",
        "        if seconds > LONGEST_WAIT:\n",
        "test_deadline.py -k no_wait",
    ),
    Mutant(
        "A6 a token is waited for without end",
        "shared/d365/transport.py",
        "with deadline.within(TOKEN_TIMEOUT), self._one_at_a_time():",
        "with self._one_at_a_time():",
        "test_deadline.py -k hanging_identity",
    ),
    Mutant(
        "A6 an invocation has no deadline",
        "shared/bridge.py",
        "        with deadline.within(IN_TIME * made.settings.function_timeout.total_seconds()):\n",
        "        if True:\n",
        "test_deadline.py -k somewhat_less",
    ),
    Mutant(
        "A6 threads don't know of the deadline",
        "shared/threads.py",
        "copy_context().run, fn, ",
        "fn, ",
        "test_deadline.py -k pools_threads",
    ),
    Mutant(
        "A1 a location on D365's alias is asked there",
        "shared/d365/client.py",
        '        if ours or parts.path.lower().startswith("/api/connector/download/"):\n',
        "        if ours:\n",
        "d365/test_client.py -k asked_for_at_d365",
    ),
    Mutant(
        "A2 a shorter wait replaces a longer one",
        "shared/d365/transport.py",
        "max(self._resume_at, resume_at)",
        "resume_at",
        "d365/test_client.py -k longest_is_kept",
    ),
    Mutant(
        "A2 all who wait come back at once",
        "shared/d365/transport.py",
        "random.uniform(1.0, 1.0 + JITTER)",
        "1.0",
        "d365/test_client.py -k one_after_the_other",
    ),
    Mutant(
        "A2 nobody else waits after a 429 that does not say how long",
        "shared/d365/transport.py",
        "(error.retry_after or 1.0)",
        "(error.retry_after or 0.0)",
        "d365/test_client.py -k refusal_for_now",
    ),
    Mutant(
        "A2 a wait of any length is spent inside a run",
        "shared/d365/transport.py",
        " or (asked or 0) > LONGEST_WAIT",
        "",
        "d365/test_client.py -k long_wait",
    ),
    Mutant(
        "A2 a wait of any length is kept",
        "shared/d365/responses.py",
        "    return min(max(0.0, seconds), LONGEST_ASKED)\n",
        "    return max(0.0, seconds)\n",
        "d365/test_client.py -k longer_than_a_day",
    ),
    Mutant(
        "A2 each thread asks for a token of its own",
        "shared/d365/transport.py",
        "with deadline.within(TOKEN_TIMEOUT), self._one_at_a_time():",
        "with deadline.within(TOKEN_TIMEOUT):",
        "d365/test_client.py -k need_a_token",
    ),
    Mutant(
        "A2 each 401 brings a new token",
        "shared/d365/transport.py",
        "                if clock.monotonic() > self._vain_until:\n",
        "                if True:\n",
        "d365/test_client.py -k double_the_requests",
    ),
    Mutant(
        "A3 urllib3 logs signatures",
        "shared/connections.py",
        'logging.getLogger("urllib3.connectionpool").addFilter(_Redact())\n',
        "",
        "d365/test_client.py -k no_secret",
    ),
    Mutant(
        "A3 texts of any length are logged",
        "shared/observability/telemetry.py",
        "    if len(text) <= TEXT_LIMIT:\n",
        "    if True:\n",
        "d365/test_client.py -k have_bounds",
    ),
    Mutant(
        "E1 an error in a 200 acknowledges",
        "shared/d365/transport.py",
        "                    require_success(operation, answer)\n",
        "                    pass\n",
        "d365/test_client.py -k whatever_its_status",
    ),
    Mutant(
        "E1 an interim answer is the answer",
        "shared/connections.py",
        "        while 101 < self.status < 200:",
        "        while False:",
        "d365/test_client.py -k interim",
    ),
    Mutant(
        "E2 messages without an id are one",
        "shared/d365/client.py",
        '    return f"{parts.path}?{parts.query}"\n',
        "    return parts.path\n",
        "d365/test_client.py -k without_a_correlation_id",
    ),
    Mutant(
        "E2 a done acknowledgement fails",
        "shared/d365/client.py",
        "            if not (error.answer_lost and error.status in (404, 410)):\n",
        "            if True:\n",
        "d365/test_client.py -k knows_the_message_no_more",
    ),
    Mutant(
        "E6 answers of any size are read",
        "shared/d365/responses.py",
        "    if len(body) > _ANSWER_LIMIT:\n",
        "    if False:\n",
        "d365/test_client.py -k too_large",
    ),
    Mutant(
        "I2 a connection that was idle for long is used again",
        "shared/connections.py",
        " > IDLE_LIMIT:",
        " > 1e9:",
        "d365/test_client.py -k idle",
    ),
    Mutant(
        "I2 half-read answers go back into the pool",
        "shared/d365/transport.py",
        "            response.release_conn() if response.closed else response.close()\n",
        "            response.release_conn()\n",
        "d365/test_client.py -k left_of_an_answer",
    ),
    Mutant(
        "I4 more bytes are sent than announced",
        "shared/d365/transport.py",
        "                if taken + len(chunk) > self._body.length:\n",
        "                if False:\n",
        "d365/test_client.py -k as_long_as_announced",
    ),
    Mutant(
        "E6 each upload makes its connections anew",
        "shared/connections.py",
        "POOL_SIZE: Final = 256\n",
        "POOL_SIZE: Final = 10\n",
        "test_deadline.py -k as_many_connections",
    ),
)


@contextmanager
def broken(mutant: Mutant) -> Iterator[Path]:
    """A copy of the project with that break in it."""
    with TemporaryDirectory(prefix="bridge-mutant-") as folder:
        copy = Path(folder) / "project"
        names = shutil.ignore_patterns("__pycache__", ".git", ".venv", "node_modules", ".*_cache")
        shutil.copytree(ROOT, copy, ignore=names)
        (copy / "node_modules").symlink_to(ROOT / "node_modules", target_is_directory=True)
        file = copy / mutant.file
        text = file.read_text(encoding="utf-8")
        if text.count(mutant.old) != 1:
            raise ValueError(f"{mutant.invariant}: its line is not in {mutant.file} any more")
        file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        yield copy


def caught(mutant: Mutant) -> str:
    """The first test that found the break; empty when none did."""
    files, _, chosen = mutant.test.partition(" -k ")
    paths = [f"tests/shared/{name}" for name in files.split()]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-rf", *paths]
    if hasattr(
        signal, "SIGALRM"
    ):  # a test that waits for ever then fails, where it would end the process
        command += ["-o", "timeout_method=signal"]
    with broken(mutant) as copy:
        run = subprocess.run(
            [*command, *(["-k", chosen] if chosen else [])],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            check=False,
        )
    if run.returncode not in (0, 1):
        raise RuntimeError(f"{mutant.invariant}: the tests did not run\n{run.stdout}{run.stderr}")
    failed = [line for line in run.stdout.splitlines() if line.startswith("FAILED ")]
    return failed[0].removeprefix("FAILED ").split(" - ")[0] if failed else ""
