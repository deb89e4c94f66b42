"""infra/subscribe.py and azure.yaml's hooks, with an app that answers over TLS and an `az` that notes calls.

The Azure CLI itself needs Azure: tests/test_commands.py has its parser read the commands."""

import importlib.util
import os
import re
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
import trustme

from tests.markdown import POWERSHELL

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("rg", "bridge-app", "bridgedata", "bridge-files")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="makes shell scripts")


@dataclass
class Azure:
    """What stands in for Azure: the running app, and `az` with its sign-in."""

    folder: Path
    host: str = ""
    requested: list[str] = field(default_factory=list)
    """Paths that were asked of the app."""

    @property
    def calls(self) -> list[str]:
        """The arguments of each call of `az`."""
        path = self.folder / "calls"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def install_az(self, refusals: int = 0, signed_in: bool = True) -> None:
        """An `az` that refuses so many deployments, as where the app does not answer in time."""
        (self.folder / "refusals").write_text(str(refusals), encoding="utf-8")
        command = self.folder / "bin/az"
        command.parent.mkdir(exist_ok=True)
        command.write_text(
            f"""#!/bin/sh
echo "$@" >> '{self.folder}/calls'
case "$1" in
  account) exit {0 if signed_in else 1} ;;
  resource) echo '{self.host}' ;;
  deployment)
    left=$(cat '{self.folder}/refusals')
    [ "$left" -eq 0 ] && exit 0
    echo $((left - 1)) > '{self.folder}/refusals'
    echo 'ERROR: Webhook validation handshake failed' >&2
    exit 1 ;;
esac
""",
            encoding="utf-8",
        )
        command.chmod(0o755)


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    azure = Azure(tmp_path)

    class App(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            azure.requested.append(self.path)
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), App) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        azure.host = f"localhost:{server.server_address[1]}"
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        monkeypatch.setattr(urllib.request, "_opener", None)  # it has read another test's
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
        monkeypatch.delenv("AZURE_SUBSCRIPTION_ID", raising=False)
        azure.install_az()
        yield azure
        server.shutdown()


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("subscribe", ROOT / "infra/subscribe.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pauses(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits that were asked for, none of which is waited."""
    waits: list[float] = []
    monkeypatch.setattr(script.time, "sleep", waits.append)
    return waits


def run(monkeypatch: pytest.MonkeyPatch, script: ModuleType, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["subscribe.py", *arguments])
    return int(script.main())


def deployments(azure: Azure) -> list[str]:
    return [call for call in azure.calls if call.startswith("deployment group create")]


def test_the_app_is_called_before_it_is_subscribed(
    azure: Azure, script: ModuleType, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One deployment, of events.bicep alone, with the names that were given."""
    assert run(monkeypatch, script, *NAMES) == 0

    assert azure.requested == ["/runtime/webhooks/blobs"]
    (deployment,) = deployments(azure)
    assert f"--template-file {ROOT / 'infra/events.bicep'}" in deployment
    assert "--resource-group rg" in deployment
    assert (
        "functionAppName=bridge-app dataAccountName=bridgedata topicName=bridge-files" in deployment
    )
    assert pauses == []


@pytest.mark.parametrize("refusals", [1, 4])
def test_a_refused_handshake_is_tried_again_after_growing_waits(
    azure: Azure,
    script: ModuleType,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    refusals: int,
) -> None:
    """The app is called before each try."""
    azure.install_az(refusals=refusals)

    assert run(monkeypatch, script, *NAMES) == 0

    assert len(deployments(azure)) == len(azure.requested) == refusals + 1
    assert len(pauses) == refusals
    assert all(later > earlier for earlier, later in zip([0.0, *pauses], pauses, strict=False))


def test_after_five_refusals_it_says_what_to_do(
    azure: Azure,
    script: ModuleType,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It fails, so that azd and GitHub do; Azure's own words are there too."""
    azure.install_az(refusals=9)

    assert run(monkeypatch, script, *NAMES) == 1

    assert len(deployments(azure)) == 5
    errors = capfd.readouterr().err
    assert "Webhook validation handshake failed" in errors
    assert "not subscribed" in errors
    assert "azd deploy" in errors


def test_an_app_that_does_not_answer_is_tried_all_the_same(
    azure: Azure, script: ModuleType, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall between this machine and the app is none between Event Grid and the app."""
    azure.host = "localhost:1"
    azure.install_az()

    assert run(monkeypatch, script, *NAMES) == 0
    assert len(deployments(azure)) == 1


def test_azd_s_subscription_goes_before_the_one_that_az_has_chosen(
    azure: Azure, script: ModuleType, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "11111111-1111-4111-8111-111111111111")

    assert run(monkeypatch, script, *NAMES) == 0
    assert all("--subscription 11111111-1111" in call for call in azure.calls)


def hook(name: str, system: str = "posix") -> str:
    """The commands of a hook of azure.yaml."""
    text = (ROOT / "azure.yaml").read_text(encoding="utf-8").split(f"\n  {name}:\n")[1]
    run = re.split(r"      run: \|?", text.split(f"    {system}:\n")[1])[1]
    return re.split(r"\n {,4}\S", run)[0].replace("\n        ", "\n")


def run_hook(name: str, **outputs: str) -> "subprocess.CompletedProcess[str]":
    """As azd runs it: from the project's root, with its environment's values."""
    return subprocess.run(
        ["sh", "-c", hook(name)],
        cwd=ROOT,
        env=os.environ | outputs,
        capture_output=True,
        text=True,
        check=False,
    )


def test_after_the_code_azd_subscribes_the_app_and_prints_the_next_steps(azure: Azure) -> None:
    """One step a line."""
    group, app, data, topic = NAMES
    done = run_hook(
        "postdeploy",
        AZURE_RESOURCE_GROUP=group,
        functionAppName=app,
        dataAccountName=data,
        topicName=topic,
        nextSteps="In D365, open > this.\nThen that.",
    )

    assert done.returncode == 0, done.stderr
    assert len(deployments(azure)) == 1
    assert done.stdout.splitlines()[-2:] == ["In D365, open > this.", "Then that."]


def test_azd_looks_for_the_azure_cli_before_it_makes_anything(azure: Azure) -> None:
    """Signed in it goes on, otherwise it stops and says so."""
    assert run_hook("preprovision").returncode == 0
    azure.install_az(signed_in=False)
    refused = run_hook("preprovision")
    assert refused.returncode == 1
    assert "az login" in refused.stderr
    assert deployments(azure) == []


def test_without_the_azure_cli_it_says_where_to_get_it(
    azure: Azure, tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(script.Failed, match=r"https://aka\.ms/azure-cli"):
        script.check()


@pytest.mark.parametrize("name", ["preprovision", "postdeploy"])
def test_the_hooks_for_windows_are_powershell_and_fail_where_python_does(name: str) -> None:
    """They run the same as those for sh; PowerShell goes on after a program that fails."""
    commands = hook(name, "windows")
    assert not POWERSHELL.parse(commands.encode()).root_node.has_error
    (script,) = re.findall(r"python(?:3)? (infra/subscribe.py \S+)", hook(name))
    assert f"python {script.replace('"$', '$env:').rstrip('"')}" in commands
    assert re.search(r"exit \$LASTEXITCODE|if \(\$LASTEXITCODE\) \{ exit 1 \}", commands)
