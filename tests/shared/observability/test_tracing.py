"""Traces and metrics, without anybody who collects them or with a reader of OpenTelemetry's own."""

import re
from collections.abc import Callable, Iterator

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

from shared.observability import tracing
from shared.observability.events import ENDINGS, emit
from tests.helpers import Events

type Points = Callable[[str], list[tuple[dict[str, object], float]]]


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> Iterator[Points]:
    """What was measured so far under a metric's name: each point's attributes and its number, or its sum."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    monkeypatch.setattr("opentelemetry.metrics.get_meter", provider.get_meter)
    tracing._instruments.cache_clear()

    def of(name: str) -> list[tuple[dict[str, object], float]]:
        data = reader.get_metrics_data()
        return [
            (
                dict(point.attributes or {}),
                point.value if isinstance(point, NumberDataPoint) else point.sum,
            )
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    yield of
    tracing._instruments.cache_clear()
    provider.shutdown()


def test_each_trace_has_an_id_of_its_own() -> None:
    """In the form of the W3C, from which the id of the log lines is read."""
    parents = {tracing.new_parent() for _ in range(100)}
    assert all(re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", each) for each in parents)
    assert len({tracing.trace_of(each) for each in parents}) == 100
    assert [tracing.trace_of(text) for text in ("", "x", "a-b-c", "a-b-c-d-e")] == [""] * 4


def test_log_lines_bear_the_trace_in_which_they_are_written(events: Events) -> None:
    """An inner one its own, and after it the outer one again."""
    outer, inner = tracing.new_parent(), tracing.new_parent()
    with tracing.span("outer", outer, job="vendors"):
        with tracing.span("inner", inner, correlationId="x"):
            emit("probe.arrived", file="1")
        emit("probe.arrived", file="2")
    emit("probe.arrived", file="3")
    first, second, third = events("probe.arrived")
    assert (first["traceId"], first["job"]) == (tracing.trace_of(inner), "vendors")
    assert (second["traceId"], "correlationId" in second) == (tracing.trace_of(outer), False)
    assert "traceId" not in third


def test_each_end_is_counted_once_by_its_outcome(points: Points) -> None:
    """Files and packages apart; how long it took only of files, and sizes only of packages."""
    for event in ENDINGS:
        tracing.measure(event, {"job": "j", "environment": "test", "seconds": 2})
    tracing.measure("package.stored", {"job": "j", "environment": "test", "bytes": 5})
    tracing.measure("export.finished", {"job": "j", "packages": 1})
    of = {"job": "j", "environment": "test"}
    files = [({**of, "outcome": each}, 1) for each in ("succeeded", "failed", "held")]
    assert points("bridge.files") == files
    assert points("bridge.file.duration") == [(attributes, 2) for attributes, _ in files]
    assert points("bridge.packages") == [
        ({**of, "outcome": "exported"}, 3),
        ({**of, "outcome": "failed"}, 2),
    ]
    assert points("bridge.package.size") == [(of, 5)]
