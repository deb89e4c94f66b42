"""Traces and metrics as a collector of OpenTelemetry's gets them, from the app in the worker library."""

import json
from datetime import timedelta
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from local.asgi_server import serve
from local.samples import VENDORS, Part, package
from local.simulator import Simulator
from shared import __version__, clock
from shared.exports import execution
from shared.storage import files
from shared.storage.account import EXPORTS, FAILED, SUCCEEDED, DataAccount
from tests.e2e.helpers import Start
from tests.helpers import EXPORT_ID, contents, drop, wait_for


class Collector:
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self.points: dict[str, list[dict[str, str]]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = dict(scope["headers"])
        if headers.get(b"content-encoding") == b"gzip":
            import gzip

            body = gzip.decompress(body)
        if scope["path"].endswith("/traces"):
            traces = ExportTraceServiceRequest.FromString(body)
            for resource in traces.resource_spans:
                attributes = resource.resource.attributes
                self.resources.append({each.key: each.value.string_value for each in attributes})
                for each in resource.scope_spans:
                    self.spans += each.spans
        else:
            metrics = ExportMetricsServiceRequest.FromString(body)
            for resource in metrics.resource_metrics:
                for each in resource.scope_metrics:
                    for metric in each.metrics:
                        data = metric.sum if metric.HasField("sum") else metric.histogram
                        self.points[metric.name] = [
                            {item.key: item.value.string_value for item in point.attributes}
                            for point in data.data_points
                        ]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def test_one_trace_from_drop_to_end_and_metrics_by_outcome(
    start: Start, d365: Simulator, account: DataAccount
) -> None:
    """The spans of all invocations have one trace id: that of the metadata, the log lines and the messages."""
    collector = Collector()
    with serve(collector) as server:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": server.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        with start(**settings) as app:
            d365.add_package(EXPORT_ID, package("Vendors", [Part(VENDORS, 5)]))
            app.invoke("export_packages")
            drop(account, "journals/USMF/may.csv", b"1;REJECT")
            wait_for(lambda: len(contents(account, FAILED)) == 2, app.output)
            names = {"send file", "check file", "export package"}
            wait_for(lambda: names <= {span.name for span in collector.spans}, app.output)
            metrics = {
                "bridge.files",
                "bridge.packages",
                "bridge.package.size",
            }
            wait_for(lambda: metrics <= collector.points.keys(), app.output)
            log = app.output()
    for resource in collector.resources:
        assert resource["service.name"] == "d365-blob-bridge"
        assert resource["service.version"] == __version__
    (file,) = files.listed(account, FAILED)
    trace_id = file.record.traceparent.split("-")[1]
    trace_ids = {
        span.trace_id.hex() for span in collector.spans if span.name in ("send file", "check file")
    }
    assert trace_ids == {trace_id}
    lines = [
        line for line in log.splitlines() if file.name in line and "message.ignored" not in line
    ]
    events = [json.loads(line[line.index("{") :]) for line in lines if "{" in line]
    assert {event.get("traceId") for event in events if "claimed" not in str(event)} >= {trace_id}
    here = {"environment": "default"}
    assert collector.points["bridge.files"] == [{"job": "journals", "outcome": "failed", **here}]
    assert collector.points["bridge.packages"] == [
        {"job": "vendors", "outcome": "exported", **here}
    ]


def test_a_package_of_the_package_api_has_one_trace_too(
    start: Start, d365: Simulator, account: DataAccount
) -> None:
    """From the drop over its execution to its end, in the running app; a data project's export beside it."""
    d365.projects["Suppliers"] = "plain"
    d365.package_api.statuses = ("Executing", "Succeeded")
    jobs = {
        "exports": [
            {
                "name": "suppliers",
                "api": "package",
                "dataProject": "Suppliers",
                "schedule": "0 0 0 1 1 *",
            }
        ],
        "imports": [{"name": "vendors", "api": "package", "dataProject": "Vendors in"}],
    }
    execution.begin_to_count(account, "suppliers", clock.now() - timedelta(days=400))
    collector = Collector()
    with serve(collector) as server:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": server.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        with start(jobs, **settings) as app:
            app.invoke("export_packages")
            drop(account, "vendors/USMF/vendors.zip", package("Vendors", [Part(VENDORS, 5)]))
            wait_for(lambda: len(contents(account, SUCCEEDED)) == 1, app.output)
            wait_for(lambda: len(contents(account, EXPORTS)) == 1, app.output)
            names = {"send file", "check file", "export data project"}
            wait_for(lambda: names <= {span.name for span in collector.spans}, app.output)
    (file,) = files.listed(account, SUCCEEDED)
    assert file.record.messageid == file.record.externalid
    trace_id = file.record.traceparent.split("-")[1]
    of_the_file = [s for s in collector.spans if s.name in ("send file", "check file")]
    assert {span.trace_id.hex() for span in of_the_file} == {trace_id}
    (exported,) = contents(account, EXPORTS)
    ids = {
        item.value.string_value
        for span in collector.spans
        if span.name == "export data project"
        for item in span.attributes
        if "execution" in item.key.lower()
    }
    assert exported.removeprefix("suppliers/").removesuffix(".zip") in ids


def test_a_collector_that_is_away_stops_nothing(start: Start, d365: Simulator) -> None:
    """Telemetry is lost, files are not."""
    with start(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9") as app:
        offered = d365.add_package(EXPORT_ID, package("Vendors", [Part(VENDORS, 5)]))
        assert app.invoke("export_packages")["status"] == "success"
    assert offered.acknowledged == 1
