"""Starts Azurite, Microsoft's storage emulator, on free ports. Several can run at once."""

import base64
import contextlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from local.node import azurite_script, require_node

# The emulator's well-known account (Microsoft Learn, "Use the Azurite emulator"): no secret.
ACCOUNT_NAME = "devstoreaccount1"
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

_LISTENING = re.compile(r"(Blob|Queue|Table) service is successfully listening at \S+:(\d+)")
_START_SECONDS = 60
_STOP_SECONDS = 10


class AzuriteFailed(RuntimeError):
    """Azurite did not start (the text has its output), or is not running."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files to serve https with."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class _Ports:
    """0 makes the system choose a free port, so that no two emulators can choose the same one."""

    blob: int = 0
    queue: int = 0
    table: int = 0


class Azurite:
    """One emulator with its own account, ports and directory.

    `start` after `stop` brings back the same data on the same ports, as after an outage. `kill`
    ends it at once, and Azurite may then lose the data of the last five seconds.
    """

    def __init__(
        self,
        directory: Path,
        *,
        account_name: str = ACCOUNT_NAME,
        account_key: str = ACCOUNT_KEY,
        https: Certificate | None = None,
        more_accounts: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self._more_accounts = tuple(more_accounts)
        self.account_name = account_name
        self.account_key = account_key
        self._https = https
        self._ports = _Ports()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of Node itself; raises `AzuriteFailed` when it is stopped."""
        if self._process is None:
            raise AzuriteFailed("Azurite is not running")
        return self._process.pid

    @property
    def blob_endpoint(self) -> str:
        return self._endpoint(self._ports.blob)

    @property
    def queue_endpoint(self) -> str:
        return self._endpoint(self._ports.queue)

    @property
    def connection_string(self) -> str:
        scheme = "https" if self._https else "http"
        return (
            f"DefaultEndpointsProtocol={scheme};AccountName={self.account_name};"
            f"AccountKey={self.account_key};BlobEndpoint={self.blob_endpoint};"
            f"QueueEndpoint={self.queue_endpoint};TableEndpoint={self._endpoint(self._ports.table)};"
        )

    def connection_string_of(self, account_name: str) -> str:
        """The connection string of another of its accounts. All its accounts have the same key."""
        return self.connection_string.replace(self.account_name, account_name)

    def _endpoint(self, port: int) -> str:
        scheme = "https" if self._https else "http"
        return f"{scheme}://127.0.0.1:{port}/{self.account_name}"

    def start(self) -> None:
        """Starts it and returns when all its services listen."""
        log = self.directory / "azurite.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "AZURITE_ACCOUNTS": ";".join(
                        f"{name}:{self.account_key}"
                        for name in (self.account_name, *self._more_accounts)
                    ),
                },
            )
        try:
            self._ports = self._wait_for_ports(self._process, log)
        except BaseException:
            self.kill()
            raise

    def _command(self) -> list[str]:
        command = [
            str(require_node()),
            "--require",
            str(Path(__file__).with_name("azurite_parent.cjs")),
            str(azurite_script()),
            "--silent",
            "--disableTelemetry",
            "--skipApiVersionCheck",  # the newest SDKs speak a newer API version than it knows
            *("--location", str(self.directory)),
            *("--blobPort", str(self._ports.blob)),
            *("--queuePort", str(self._ports.queue)),
            *("--tablePort", str(self._ports.table)),
        ]
        if self._https:
            command += ["--cert", str(self._https.certificate), "--key", str(self._https.key)]
            command += ["--oauth", "basic"]
        return command

    @staticmethod
    def _wait_for_ports(process: subprocess.Popen[bytes], log: Path) -> _Ports:
        # Its output says the ports. A probe of a port proves nothing: another program may answer there.
        deadline = time.monotonic() + _START_SECONDS
        while True:
            output = log.read_text(encoding="utf-8", errors="replace")
            ports = {kind.lower(): int(port) for kind, port in _LISTENING.findall(output)}
            if len(ports) == 3:
                return _Ports(**ports)
            if process.poll() is not None:
                raise AzuriteFailed(f"Azurite ended with code {process.returncode}:\n{output}")
            if time.monotonic() > deadline:
                raise AzuriteFailed(f"Azurite did not start within {_START_SECONDS} s:\n{output}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends it in good order, with its data on disk. Does nothing if it is not running."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Ends it at once. Does nothing if it is not running."""
        process = self._process
        if process is None:
            return
        self._process = None
        process.kill()
        process.wait()
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()


@contextlib.contextmanager
def running_azurite(
    *,
    directory: Path | None = None,
    account_name: str = ACCOUNT_NAME,
    https: Certificate | None = None,
    more_accounts: Sequence[str] = (),
) -> Iterator[Azurite]:
    """A running Azurite, stopped at the end; several can run at once.

    Without `directory` its data goes to a temporary one, removed at the end. An `account_name`
    other than the well-known one gets a random key. With `https` it serves TLS and takes bearer
    tokens as well as keys (`--oauth basic`: the token's audience, issuer and times are checked,
    its signature and roles are not).
    """
    key = ACCOUNT_KEY
    if account_name != ACCOUNT_NAME:
        key = base64.b64encode(secrets.token_bytes(64)).decode()
    folder = directory or Path(tempfile.mkdtemp(prefix="azurite-"))
    azurite = Azurite(
        folder, account_name=account_name, account_key=key, https=https, more_accounts=more_accounts
    )
    try:
        azurite.start()
        yield azurite
    finally:
        azurite.stop()
        if directory is None:
            shutil.rmtree(folder, ignore_errors=True)
