"""Sample data in the forms that D365 writes and reads: entity files and data packages.

A data package is a zip with `Manifest.xml` (which entities, from which files, which fields),
`PackageHeader.xml` and a file for each entity (Microsoft Learn, "Data entities and packages
overview"; element names as in packages that D365 exports). The rows are made up; the same
arguments give the same bytes.
"""

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal
from xml.sax.saxutils import escape, quoteattr

_NAMESPACE = "http://schemas.microsoft.com/dynamics/2015/01/DataManagement"
_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
_MANIFEST_TYPE = (
    "Microsoft.Dynamics.AX.Framework.Tools.DataManagement.Serialization."
    "DataManagementPackageManifest"
)
# The time of every zip member. zipfile would take the current time, and no two packages would be equal.
_WRITTEN = (2026, 11, 23, 6, 30, 0)

type Form = Literal["csv", "xml"]
type Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entity:
    """A data entity of D365 with its fields, and a function that makes up its rows."""

    name: str
    target: str
    fields: tuple[str, ...]
    row: Callable[[int], Row]

    def csv(self, rows: int, first: int = 1) -> bytes:
        """The entity's file as `CSV-Unicode`: comma, quotes where needed, CRLF, a header."""
        lines = [_csv_line(self.fields)]
        lines += [_csv_line(self.row(number)) for number in range(first, first + rows)]
        return "".join(lines).encode("utf-8-sig")

    def xml(self, rows: int, first: int = 1) -> bytes:
        """The entity's file as `XML-Element`: one element for each record, named after the entity."""
        tag = self.target.upper()
        text = io.StringIO()
        text.write('<?xml version="1.0" encoding="utf-8"?>\n<Document>\n')
        for number in range(first, first + rows):
            text.write(f"  <{tag}>\n")
            for field, value in zip(self.fields, self.row(number), strict=True):
                text.write(f"    <{field}>{escape(value)}</{field}>\n")
            text.write(f"  </{tag}>\n")
        text.write("</Document>\n")
        return text.getvalue().encode()


@dataclass(frozen=True, slots=True)
class Part:
    """An entity's file in a package."""

    entity: Entity
    rows: int
    form: Form = "csv"

    @property
    def file_name(self) -> str:
        return f"{self.entity.name}.{self.form}"

    def content(self) -> bytes:
        return self.entity.csv(self.rows) if self.form == "csv" else self.entity.xml(self.rows)


def package(description: str, parts: Sequence[Part]) -> bytes:
    """A data package as D365 exports it, in memory."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        _write_head(archive, description, parts)
        for part in parts:
            archive.writestr(_member(part.file_name, zipfile.ZIP_DEFLATED), part.content())
    return file.getvalue()


def write_large_package(path: Path, size: int, compression: int = zipfile.ZIP_STORED) -> None:
    """Writes a data package with a little more than `size` bytes of content, with little memory.

    By default its one entity is not compressed, so that the package has this size too. No two blocks of it are
    equal, so that exchanged or repeated blocks change its hash.
    """
    part = Part(GENERAL_LEDGER, 0)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _write_head(archive, "General ledger, full export", [part])
        member = _member(part.file_name, compression)
        with archive.open(member, "w", force_zip64=True) as file:
            _write_rows(file, size)


def _write_rows(file: IO[bytes], size: int) -> None:
    file.write(GENERAL_LEDGER.csv(0))
    block = b"".join(_csv_line(GENERAL_LEDGER.row(n)).encode() for n in range(1, 20_001))
    written = 0
    while written < size:
        number = written // len(block)
        text = block.replace(b"BATCH-000000", b"BATCH-%06d" % number)
        cut = text if written + len(text) <= size else text[: text.find(b"\n", size - written) + 1]
        written += file.write(cut or text)


def _member(name: str, compression: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _WRITTEN)
    member.compress_type = compression
    member.external_attr = 0o644 << 16
    return member


def _write_head(archive: zipfile.ZipFile, description: str, parts: Sequence[Part]) -> None:
    for name, text in (
        ("Manifest.xml", "".join(_manifest(description, parts))),
        ("PackageHeader.xml", _package_header(description)),
    ):
        archive.writestr(_member(name, zipfile.ZIP_DEFLATED), text.encode())


def _package_header(description: str) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f"<DataManagementPackageHeader xmlns:i={quoteattr(_INSTANCE)} "
        f"xmlns={quoteattr(_NAMESPACE)}>\n"
        f"  <Description>{escape(description)}</Description>\n"
        f"  <ManifestType>{_MANIFEST_TYPE}</ManifestType>\n"
        "  <PackageType>DefinitionGroup</PackageType>\n"
        "  <PackageVersion>2</PackageVersion>\n"
        "</DataManagementPackageHeader>\n"
    )


def _manifest(description: str, parts: Sequence[Part]) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="utf-8"?>\n'
    yield f"<DataManagementPackageManifest xmlns:i={quoteattr(_INSTANCE)} "
    yield f"xmlns={quoteattr(_NAMESPACE)}>\n"
    yield f"  <DefinitionGroupName>{escape(description)}</DefinitionGroupName>\n"
    yield f"  <Description>{escape(description)}</Description>\n"
    yield "  <PackageEntityList>\n"
    for sequence, part in enumerate(parts, 1):
        yield "    <DataManagementPackageEntityData>\n"
        yield "      <DefaultRefreshType>FullPush</DefaultRefreshType>\n"
        yield "      <Disable>false</Disable>\n"
        yield "      <EntityMapList>\n"
        for field in part.entity.fields:
            yield "        <EntityMap>\n"
            yield f"          <EntityField>{field}</EntityField>\n"
            yield f"          <XMLField>{field}</XMLField>\n"
            yield "        </EntityMap>\n"
        yield "      </EntityMapList>\n"
        yield f"      <EntityName>{escape(part.entity.name)}</EntityName>\n"
        yield "      <ExecutionUnit>1</ExecutionUnit>\n"
        yield f"      <InputFilePath>{escape(part.file_name)}</InputFilePath>\n"
        yield "      <LevelInExecutionUnit>1</LevelInExecutionUnit>\n"
        yield f"      <SequenceInLevel>{sequence}</SequenceInLevel>\n"
        form = "CSV-Unicode" if part.form == "csv" else "XML-Element"
        yield f"      <SourceFormat>{form}</SourceFormat>\n"
        yield f"      <TargetEntity>{part.entity.target}</TargetEntity>\n"
        yield "    </DataManagementPackageEntityData>\n"
    yield "  </PackageEntityList>\n</DataManagementPackageManifest>\n"


def _csv_line(values: Sequence[str]) -> str:
    return ",".join(map(_csv_value, values)) + "\r\n"


def _csv_value(value: str) -> str:
    if any(character in value for character in ',"\r\n'):
        return '"' + value.replace('"', '""') + '"'
    return value


# --- Entities ---------------------------------------------------------------------------------

_VENDOR_NAMES = (
    "Fabrikam Electronics",
    "Contoso office supply",
    "Łódź Narzędzia Sp. z o.o.",
    "Müller & Söhne GmbH",
    "東京部品株式会社",
    'Acme "Fast" Parts, Inc.',
    "Lande Packaging Supplies",
)
_ACCOUNTS = ("110110", "130100", "200100", "401100", "601300", "605120")


def _day(number: int) -> str:
    return f"2026-{number % 12 + 1:02}-{number % 28 + 1:02}"


def _vendor(number: int) -> Row:
    name = _VENDOR_NAMES[number % len(_VENDOR_NAMES)]
    return (
        f"US-{100 + number:06}",
        name,
        ("10", "20", "30")[number % 3],
        ("USD", "EUR", "JPY")[number % 3],
        ("Net30", "Net10", "Net60")[number % 3],
        f"payables{number}@vendor.example",
    )


def _payment_line(number: int) -> Row:
    return (
        "ARP-00042",
        str(number),
        f"US-{number % 40:03}",
        f"{(number * 7919) % 900_000 / 100:.2f}",
        "USD",
        _day(number),
        ("ELECTRONIC", "CHECK", "WIRE")[number % 3],
        f"Payment for INV-{5000 + number}",
    )


def _journal_line(number: int) -> Row:
    amount = f"{(number * 104_729) % 5_000_000 / 100:.2f}"
    debit = number % 2 == 1
    return (
        "GNJL-000123",
        str(number),
        _day(number),
        f"{_ACCOUNTS[number % len(_ACCOUNTS)]}-001-022",
        "Ledger",
        amount if debit else "0.00",
        "0.00" if debit else amount,
        "USD",
        f"Accrual {number}",
    )


def _product(number: int) -> Row:
    return (
        f"D{number:04}",
        ("Standard speaker", "Mid-range speaker", "Câble d'enceinte", "ケーブル")[number % 4],
        ("ea", "m", "kg")[number % 3],
        f"{(number * 37) % 40_000 / 100:.2f}",
    )


def _ledger_line(number: int) -> Row:
    return (
        "BATCH-000000",
        f"GL-{number:08}",
        _day(number),
        f"{_ACCOUNTS[number % len(_ACCOUNTS)]}-{number % 997:03}-{number % 89:03}",
        f"{(number * 15_485_863) % 100_000_000 / 100:.2f}",
        "USD",
        f"Posting {number * 2_654_435_761 % 2**32:08x} of the general ledger",
    )


VENDORS = Entity(
    "Vendors V2",
    "VendVendorV2Entity",
    (
        "VENDORACCOUNTNUMBER",
        "VENDORORGANIZATIONNAME",
        "VENDORGROUPID",
        "CURRENCYCODE",
        "DEFAULTPAYMENTTERMSNAME",
        "PRIMARYEMAILADDRESS",
    ),
    _vendor,
)
CUSTOMER_PAYMENTS = Entity(
    "Customer payment journal lines",
    "CustomerPaymentJournalLineEntity",
    (
        "JOURNALBATCHNUMBER",
        "LINENUMBER",
        "ACCOUNTDISPLAYVALUE",
        "CREDITAMOUNT",
        "CURRENCYCODE",
        "TRANSACTIONDATE",
        "PAYMENTMETHODNAME",
        "TRANSACTIONTEXT",
    ),
    _payment_line,
)
GENERAL_JOURNAL = Entity(
    "General journal",
    "LedgerJournalEntity",
    (
        "JOURNALBATCHNUMBER",
        "LINENUMBER",
        "TRANSDATE",
        "ACCOUNTDISPLAYVALUE",
        "ACCOUNTTYPE",
        "DEBITAMOUNT",
        "CREDITAMOUNT",
        "CURRENCYCODE",
        "TEXT",
    ),
    _journal_line,
)
RELEASED_PRODUCTS = Entity(
    "Released products V2",
    "EcoResReleasedProductV2Entity",
    ("ITEMNUMBER", "PRODUCTNAME", "INVENTORYUNITSYMBOL", "SALESPRICE"),
    _product,
)
GENERAL_LEDGER = Entity(
    "General ledger activities",
    "GeneralLedgerActivityEntity",
    (
        "JOURNALBATCHNUMBER",
        "VOUCHER",
        "ACCOUNTINGDATE",
        "LEDGERACCOUNT",
        "ACCOUNTINGCURRENCYAMOUNT",
        "TRANSACTIONCURRENCYCODE",
        "DESCRIPTION",
    ),
    _ledger_line,
)
