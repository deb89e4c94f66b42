"""Storage without a key: over https, with tokens of the managed identity, as in Azure."""

import json
from pathlib import Path

import pytest
import trustme

from local.azurite import Certificate, running_azurite
from local.host_process import running_host
from local.samples import VENDORS, Part, package
from local.simulator import Simulator, identity_settings
from shared.config.settings import Storage
from shared.storage.account import EXPORTS, SUCCEEDED, connect
from tests.e2e.helpers import NEVER
from tests.helpers import EXPORT_ID, JOBS, contents, drop, wait_for


def test_the_whole_job_with_the_managed_identity(
    d365: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A5: trigger bindings and our own clients read the same settings, and none holds a secret. The host makes
    the containers that are not there."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = authority.issue_cert("127.0.0.1", "localhost")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    trusted = {"REQUESTS_CA_BUNDLE": str(tmp_path / "ca.pem")}
    d365.statuses = ("Processed",)
    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps(JOBS), encoding="utf-8")
    https = Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
    monkeypatch.setenv(*next(iter(trusted.items())))
    with running_azurite(https=https) as azurite:
        account = connect(Storage(azurite.connection_string, None, None, None))
        settings = {
            "FUNCTIONS_WORKER_RUNTIME": "python",
            "D365_URL": d365.base_url,
            "JOBS_FILE": str(jobs),
            "EXPORT_SCHEDULE": NEVER,
            "RECONCILE_SCHEDULE": NEVER,
            **identity_settings(d365),
        }
        for name in ("DataStorage", "AzureWebJobsStorage"):
            settings |= {
                f"{name}__blobServiceUri": azurite.blob_endpoint,
                f"{name}__queueServiceUri": azurite.queue_endpoint,
                f"{name}__credential": "managedidentity",
                f"{name}__clientId": "33333333-3333-3333-3333-333333333333",
            }
        offered = d365.add_package(EXPORT_ID, package("Vendors", [Part(VENDORS, 20)]))
        with running_host(settings, environment=trusted) as app:
            assert app.invoke("export_packages")["status"] == "success", app.output()
            assert offered.acknowledged == 1, app.output()
            drop(account, "journals/USMF/may.csv", b"1;2;3")
            wait_for(lambda: contents(account, SUCCEEDED), app.output)
            assert len(contents(account, EXPORTS)) == 1
            assert not any(token in app.output() for token in d365.tokens)
    audiences = {audience for audience, _ in d365.tokens.values()}
    assert audiences == {"https://storage.azure.com", d365.base_url}
