"""Starts an import at the event of a dropped file: claims the file, has it sent to D365, and schedules its
status checks.

    imports/{path} --claim--> imports-processing [claimed] --intent--> [sending] --enqueue--> [sent]

Each arrow is one conditional write, so of any number of workers one takes it. After a crash the state says what
may be done next: a file that is `claimed` was surely not sent, of one that is `sending` nobody can know, and
`sent` has its message id (I1, I2).
"""

from shared.bridge import Bridge
from shared.imports import claim, schedule, send
from shared.observability.events import emit
from shared.storage import files, names
from shared.storage.account import IMPORTS


def import_file(bridge: Bridge, name: str) -> None:
    """Send a dropped file, if nobody has yet. `name` is its blob's in `imports`.

    An event that is repeated, late, or of a file long gone changes nothing.
    """
    if names.is_probe(name):
        files.delete_probe(bridge.account, name)
        emit("probe.arrived", file=name)
        return
    if not names.is_addressable(name):
        claim.report_unaddressable(name)
        return
    dropped = files.find(bridge.account, IMPORTS, name)
    if dropped is None:
        claim.ignore(name, "it is not in imports any more")
        return
    if not files.is_file(IMPORTS, name, dropped.user_metadata):
        return
    job = bridge.settings.jobs.import_job(names.job_folder(name))
    wait = claim.check_drop(bridge, dropped)
    if wait and wait.until:
        schedule.check_drop(bridge, name, wait.until)
    if job and job.one_at_a_time:
        send.send_next(bridge, job)
    elif not wait and (routed := claim.claim_and_route(bridge, dropped)):
        send.send(bridge, *routed)
