"""Names of the blobs that people see: files, packages and what lies beside them. They are made and parsed here
only; what the app alone reads is named by the module that keeps it.

A dropped file gets a stamp of time and ETag when it is claimed, and keeps that name to its end. A package's
name follows from the message that announced it.
"""

import re
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote
from uuid import uuid4

_ERROR_REPORT: Final = ".error.json"
_NAME_LIMIT: Final = 1024 - len(_ERROR_REPORT)
_PART_LIMIT: Final = 255 - len(_ERROR_REPORT)
"""Characters of the last part of a name: a hierarchical namespace takes 255 in each part of a path (Microsoft
Learn, "Known issues with Azure Data Lake Storage Gen2", file and directory names)."""

_SAFE_ID: Final = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z._-]{0,126}[0-9A-Za-z])?")


def package_name(job: str, correlation_id: str, sha256_: str = "", extension: str = ".zip") -> str:
    """A package's blob: it follows from the message alone, so that one offered again finds it (E2).

    `sha256_` makes the name of a second package under one correlation id.
    """
    return f"{job}/{safe_id(correlation_id)}{'.' * bool(sha256_)}{sha256_[:12]}{extension}"


def redelivered_name(package: str, moment: datetime) -> str:
    """The name of a copy of a package, beside it."""
    stem, _, extension = package.rpartition(".")
    return f"{stem}.redelivered-{moment:%Y%m%dT%H%M%SZ}.{extension}"


def safe_id(correlation_id: str) -> str:
    """A correlation id as it stands in names: one with anything in it that is not at home in a file's name is
    hashed (A4)."""
    if _SAFE_ID.fullmatch(correlation_id):
        return correlation_id
    return sha256(correlation_id.encode()).hexdigest()


def job_folder(name: str) -> str:
    """What stands for the job in a blob's name, whether there is such a job or not."""
    return name.partition("/")[0]


def stamped(path: str, modified: datetime, etag: str) -> str:
    """The name that a dropped version keeps from its claim on: its path with a stamp of time and ETag.

    `journals/USMF/may.csv` becomes `journals/USMF/may.20261123T204138Z-1a2b3c4d.csv`: the same for the same
    version whoever asks, another for every other version. What is too long loses the end of its stem.
    """
    mark = sha256(f"{path}\n{etag}".encode()).hexdigest()[:8]
    stamp = f".{modified.astimezone(UTC):%Y%m%dT%H%M%SZ}-{mark}"
    pure = PurePosixPath(path)
    suffix = pure.suffix if len(pure.suffix) <= 16 else ""
    stem = path.removesuffix(suffix)
    tail = len(stamp) + _units(suffix)
    folder, slash, file = stem.rpartition("/")
    whole = folder + slash + _cut(file, _PART_LIMIT - tail)
    return _cut(whole, _NAME_LIMIT - tail) + stamp + suffix


def _units(text: str) -> int:
    """Storage is a .NET service, where a character beyond the basic plane counts as two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _cut(text: str, units: int) -> str:
    return text.encode("utf-16-le", "surrogatepass")[: 2 * units].decode("utf-16-le", "ignore")


_STAMP: Final = re.compile(r"\.(\d{8}T\d{6}Z)-[0-9a-f]{8}(?:\.[^./]*)?$")


def dropped_at(name: str) -> datetime | None:
    """When the file of a stamped name was dropped; None where the name has no stamp."""
    match = _STAMP.search(name)
    try:
        return datetime.strptime(match[1], "%Y%m%dT%H%M%S%z") if match else None
    except ValueError:
        return None


def unstamped(name: str) -> str:
    """A stamped name as the file was dropped, as far as it was not cut; other names as they are."""
    match = _STAMP.search(name)
    return (
        name[: match.start()] + name[match.start() + len(".20261123T204138Z-1a2b3c4d") :]
        if match
        else name
    )


def external_id(name: str) -> str:
    """What D365 shows for a file: its stamped file name in ASCII, at most 128 characters."""
    file = name.rsplit("/", 1)[-1]
    match = _STAMP.search(file)
    stem, stamped_ = (file[: match.start()], match[0][1:]) if match else (file, "")
    stamp, _, suffix = stamped_.partition(".")
    suffix = quote(suffix, safe=" ")
    tail = f".{stamp}" + f".{suffix}" * (0 < len(suffix) <= 32)
    # A header loses the spaces that it begins with; requests sends none that does.
    begins = len(stem) - len(stem.lstrip(" "))
    return ("%20" * begins + quote(stem[begins:], safe=" ()+,=@~"))[: 128 - len(tail)] + tail


_ERROR_KEYS: Final = ".error.keys/"


def error_report_name(file: str) -> str:
    """What lies beside a failed file: what happened, and what to do."""
    return file + _ERROR_REPORT


def error_keys_name(file: str, entity: str) -> str:
    """What lies beside a failed file too: D365's keys of an entity's failed records."""
    return f"{file}{_ERROR_KEYS}{re.sub(r'[^\w .()-]', '_', entity)[:80]}.txt"


def is_beside_failed(name: str) -> bool:
    """Whether it is a name that we give to what lies beside a failed file."""
    file, keys, entity = name.rpartition(_ERROR_KEYS)
    return name.endswith(_ERROR_REPORT) or bool(keys and "/" not in entity and _STAMP.search(file))


PROBE: Final = ".check-"
"""What `shared/operations/health.py` writes into the containers begins so; no flow takes it for a file."""


def new_probe() -> str:
    """A name for a probe."""
    return f"{PROBE}{uuid4()}"


def is_probe(name: str) -> bool:
    """Whether a blob is a probe, and no file that a person gave such a name."""
    return bool(_PROBE.fullmatch(name))


_PROBE: Final = re.compile(re.escape(PROBE) + r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NO_NAME: Final = re.compile(r"(^|[/\\])\.\.?([/\\]|$)|\0")
"""Names that lead to another blob, even of another container: the SDK's HTTP library folds the dots of a URL,
and storage may take a backslash for a slash. No blob has such a name (A4), nor one with a NUL."""


def is_addressable(name: str) -> bool:
    """Whether a request for a blob of that name reaches it."""
    return not _NO_NAME.search(name)
