"""The demo's data: the jobs of two D365 environments, the packages that they offer, the files to drop."""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from local import samples
from local.audit import Drop
from local.samples import Part

LARGE = 200 * 1024 * 1024
"""The size of the largest package, in bytes."""

# The error texts of the simulator for the file that it rejects.
COMPLAINTS = (
    "Results. Voucher GNJL-999999 does not balance as per 2026-11-23. (accounting currency 17.00)",
    "Main account 999999 does not exist in chart of accounts Shared.",
)

REJECTED = b"GNJL-999999"
"""The simulator rejects a file that contains this."""

_EXPORTS = {
    "customer-payments": "3f1c2a8e-6f0b-4a57-9d3e-0a5b7c1d2e01",
    "vendors-out": "3f1c2a8e-6f0b-4a57-9d3e-0a5b7c1d2e02",
    "general-ledger": "3f1c2a8e-6f0b-4a57-9d3e-0a5b7c1d2e03",
}
_UNZIPPED = "vendors-out"
PROJECT, PROJECT_EXPORT = "Price list out", "price-list"
"""A data project, and the job that exports it by the package API."""
PRODUCTION, TEST = "production", "test"
"""The names of the two environments. *test* refuses the app until *production* is done."""
_TEST_EXPORT, _TEST_IMPORT = "test-vendors-out", "test-vendors"
"""The jobs of *test*. Their activity ids are those of *production*: its database is a copy of that."""
_IMPORTS = {
    "vendors": "8b7d4c52-1e9a-4f63-8c2b-5d6e7f809a01",
    "payments": "8b7d4c52-1e9a-4f63-8c2b-5d6e7f809a02",
    "general-journal": "8b7d4c52-1e9a-4f63-8c2b-5d6e7f809a03",
    "products": "8b7d4c52-1e9a-4f63-8c2b-5d6e7f809a04",
}

JOBS: dict[str, list[dict[str, Any]]] = {
    "exports": [
        *(
            {
                "name": name,
                "activityId": id_,
                "environment": PRODUCTION,
                **({"unzip": True} if name == _UNZIPPED else {}),
            }
            for name, id_ in _EXPORTS.items()
        ),
        {
            "name": PROJECT_EXPORT,
            "api": "package",
            "dataProject": PROJECT,
            "schedule": "0 0 2 * * *",
            "environment": PRODUCTION,
        },
        {"name": _TEST_EXPORT, "activityId": _EXPORTS[_UNZIPPED], "environment": TEST},
    ],
    "imports": [
        {
            "name": "vendors",
            "activityId": _IMPORTS["vendors"],
            "environment": PRODUCTION,
            "entity": samples.VENDORS.name,
            "company": "USMF",
        },
        {
            "name": "payments",
            "activityId": _IMPORTS["payments"],
            "environment": PRODUCTION,
            "entity": samples.CUSTOMER_PAYMENTS.name,
        },
        {
            "name": "general-journal",
            "activityId": _IMPORTS["general-journal"],
            "environment": PRODUCTION,
            "entity": samples.GENERAL_JOURNAL.name,
        },
        {"name": "products", "activityId": _IMPORTS["products"], "environment": PRODUCTION},
        {
            "name": "prices",
            "api": "package",
            "dataProject": "Prices in",
            "environment": PRODUCTION,
        },
        {
            "name": _TEST_IMPORT,
            "activityId": _IMPORTS["vendors"],
            "environment": TEST,
            "entity": samples.VENDORS.name,
            "company": "USMF",
        },
    ],
}
EXPORT_IDS: Sequence[str] = tuple(_EXPORTS.values())
IMPORT_IDS: Sequence[str] = tuple(_IMPORTS.values())


def jobs(urls: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """The jobs file; `urls` are the environments' addresses, by their names."""
    return {"environments": [{"name": name, "url": url} for name, url in urls.items()], **JOBS}


def environment_of(job: str) -> str:
    """The environment of a job; "" where there is no such job."""
    named = (each["environment"] for kind in JOBS.values() for each in kind if each["name"] == job)
    return next(named, "")


@dataclass(frozen=True, slots=True)
class Offer:
    """A package that D365 will offer."""

    job: str
    activity_id: str
    path: Path

    def members(self) -> dict[str, str]:
        """For a job that unzips, each file in the package with its SHA-256."""
        if self.job != _UNZIPPED:
            return {}
        with zipfile.ZipFile(self.path) as archive:
            return {
                name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()
            }


@dataclass(frozen=True, slots=True)
class DroppedFile:
    """A file that a person drops, with the expected result."""

    content: bytes
    expected: Drop


def write_packages(directory: Path) -> list[Offer]:
    """Writes the packages into `directory`; the largest is the last one, so that no other one waits for it."""
    payments = [Part(samples.CUSTOMER_PAYMENTS, 400)]
    vendors = [Part(samples.VENDORS, 250), Part(samples.RELEASED_PRODUCTS, 120, "xml")]
    offers: list[Offer] = []

    def offer(job: str, description: str, parts: Sequence[Part]) -> None:
        path = directory / f"{len(offers)}.zip"
        path.write_bytes(samples.package(description, parts))
        id_ = next(each["activityId"] for each in JOBS["exports"] if each["name"] == job)
        offers.append(Offer(job, id_, path))

    offer("customer-payments", "Customer payments, morning", payments)
    offer("customer-payments", "Customer payments, noon", [Part(samples.CUSTOMER_PAYMENTS, 1_200)])
    offer(_UNZIPPED, "Vendors and products", vendors)
    offer(_TEST_EXPORT, "Vendors of the test environment", [Part(samples.VENDORS, 25)])
    large = directory / "large.zip"
    samples.write_large_package(large, LARGE)
    return [*offers, Offer("general-ledger", _EXPORTS["general-ledger"], large)]


def files() -> list[DroppedFile]:
    """The files that people drop."""
    vendors, payments, journal = (
        samples.VENDORS,
        samples.CUSTOMER_PAYMENTS,
        samples.GENERAL_JOURNAL,
    )
    products = samples.package("Products", [Part(samples.RELEASED_PRODUCTS, 300)])
    prices = samples.package("Prices", [Part(samples.RELEASED_PRODUCTS, 30)])
    unbalanced = journal.csv(3).replace(b"GNJL-000123", REJECTED)
    return [
        _dropped("vendors/new vendors.csv", vendors.csv(60), vendors.name, "USMF"),
        _dropped("payments/DEMF/payments week 47.xml", payments.xml(80), payments.name, "DEMF"),
        _dropped(
            "general-journal/FRSI/Écritures août 日本 №7.csv", journal.csv(40), journal.name, "FRSI"
        ),
        _dropped("products/item master.zip", products, None, None),
        _dropped("prices/USMF/prices.zip", prices, None, "USMF"),
        _dropped(f"{_TEST_IMPORT}/try.csv", vendors.csv(6), vendors.name, "USMF"),
        _dropped(
            "general-journal/USMF/unbalanced.csv",
            unbalanced,
            journal.name,
            "USMF",
            "failed",
            complaint=COMPLAINTS[0],
        ),
        _dropped(
            "somewhere/forgotten.csv",
            b"which job is this for?\r\n",
            None,
            None,
            "failed",
            sent=False,
            complaint="somewhere",
        ),
    ]


def _dropped(
    path: str,
    content: bytes,
    entity: str | None,
    company: str | None,
    outcome: Literal["succeeded", "failed"] = "succeeded",
    *,
    sent: bool = True,
    complaint: str = "",
) -> DroppedFile:
    hash_ = hashlib.sha256(content).hexdigest()
    return DroppedFile(content, Drop(path, hash_, entity, company, outcome, sent, complaint))
