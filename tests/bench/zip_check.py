"""How fast a package is checked, beside what zlib alone does: `python -m tests.bench.zip_check [MiB]`."""

import io
import random
import sys
import time
import zipfile
import zlib
from collections.abc import Callable

from shared.packages import PackageCheck

BLOCK = 4 * 1024 * 1024


def _rows(size: int) -> bytes:
    chance = random.Random(1)
    some = "".join(
        f"{n:08};CUST-{chance.randrange(9999):05};USMF;{chance.random() * 1000:.2f};EUR\r\n"
        for n in range(100_000)
    ).encode()
    return (some * (size // len(some) + 1))[:size]


def _best(run: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return min(times)


def _blocks(data: bytes) -> list[memoryview]:
    view = memoryview(data)
    return [view[at : at + BLOCK] for at in range(0, len(data), BLOCK)]


def _check(data: bytes) -> None:
    check = PackageCheck()
    for block in _blocks(data):
        check.feed(block)
    check.finish()


def _crc(data: bytes) -> None:
    crc = 0
    for block in _blocks(data):
        crc = zlib.crc32(block, crc)


def _inflate(data: bytes) -> None:
    inflater = zlib.decompressobj(wbits=-15)
    for block in _blocks(data):
        inflater.decompress(block)


def main(mib: int) -> None:
    rows = _rows(mib * 1024 * 1024)
    deflater = zlib.compressobj(wbits=-15)
    deflated = deflater.compress(rows) + deflater.flush()
    cases: list[tuple[str, int, list[tuple[str, bytes]]]] = [
        ("stored", zipfile.ZIP_STORED, [("rows.csv", rows)]),
        ("deflated", zipfile.ZIP_DEFLATED, [("rows.csv", rows)]),
        ("20,000 entries", zipfile.ZIP_DEFLATED, [(f"{n}.xml", rows[:500]) for n in range(20_000)]),
    ]
    print(f"crc32 alone      {mib / _best(lambda: _crc(rows)):8.0f} MiB/s")
    print(f"inflate alone    {mib / _best(lambda: _inflate(deflated)):8.0f} MiB/s of content")
    for name, method, files in cases:
        into = io.BytesIO()
        with zipfile.ZipFile(into, "w", method) as archive:
            for file, content in files:
                archive.writestr(file, content)
        package = into.getvalue()
        seconds = _best(lambda package=package: _check(package))  # type: ignore[misc]
        content_mib = sum(len(content) for _, content in files) / 1024**2
        print(
            f"{name:16} {content_mib / seconds:8.0f} MiB/s of content, "
            f"{len(files) / seconds:,.0f} entries/s"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 256)
