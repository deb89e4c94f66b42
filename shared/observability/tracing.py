"""Traces and metrics by OpenTelemetry, for Application Insights or any other back end.

A file's trace begins with its claim and ends with its end, over all invocations between: its W3C context
(`traceparent`) stands in the file's metadata and in its queue messages, and as `traceId` on its log lines.
Whoever provides the SDK decides where all goes: the Functions worker, or, where `OTEL_EXPORTER_OTLP_ENDPOINT`
names a collector, `export`. Without either, spans and metrics cost next to nothing, and the ids are there all
the same.

Metrics, each by job and environment: `bridge.files` {outcome}, `bridge.packages` {outcome},
`bridge.file.duration` {outcome} (seconds from drop to end), `bridge.package.size` (bytes).
`docs/operations.md` has them.
"""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared import __version__
from shared.observability.events import ENDINGS, about

_NAME = "d365-blob-bridge"
_FORM = TraceContextTextMapPropagator()
_tracer = trace.get_tracer(_NAME)


def new_parent() -> str:
    """The `traceparent` of a trace that begins here, never the present one: an invocation serves many files."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def trace_of(parent: str) -> str:
    """The trace's id in a `traceparent`, "" where there is none."""
    return parent.split("-")[1] if parent.count("-") == 3 else ""


@contextmanager
def span(name: str, parent: str, **attributes: str) -> Iterator[None]:
    """A part of the trace that `parent` (a `traceparent`) began, linked to the invocation that it is done in.

    Log lines within bear the trace's id and the attributes.
    """
    context = _FORM.extract({"traceparent": parent})
    present = trace.get_current_span().get_span_context()
    links = [trace.Link(present)] if present.is_valid else None
    with (
        about(traceId=trace_of(parent), **attributes),
        _tracer.start_as_current_span(name, context=context, attributes=attributes, links=links),
    ):
        yield


@lru_cache(maxsize=1)
def _instruments() -> Mapping[str, Any]:
    from opentelemetry import metrics  # with the first event: a cold start need not wait for it

    meter = metrics.get_meter(_NAME)
    instruments = (
        meter.create_counter("bridge.files", "{file}", "Files that ended, by job and outcome."),
        meter.create_counter("bridge.packages", "{package}", "Packages, by job and outcome."),
        meter.create_histogram("bridge.file.duration", "s", "From the drop to the end."),
        meter.create_histogram("bridge.package.size", "By", "Of stored packages."),
    )
    names = ("bridge.files", "bridge.packages", "bridge.file.duration", "bridge.package.size")
    return dict(zip(names, instruments, strict=True))


def measure(event: str, fields: Mapping[str, object]) -> None:
    """Count what an event says; a listener of `events`."""
    of = {name: str(fields.get(name, "")) for name in ("job", "environment")}
    if event in ENDINGS:
        counter = "bridge.files" if event.startswith("file.") else "bridge.packages"
        outcome = ENDINGS[event]
        _instruments()[counter].add(1, {**of, "outcome": outcome})
        if counter == "bridge.files" and isinstance(seconds := fields["seconds"], int | float):
            duration = _instruments()["bridge.file.duration"]
            duration.record(seconds, {**of, "outcome": outcome})
    elif event == "package.stored" and isinstance(size := fields["bytes"], int):
        _instruments()["bridge.package.size"].record(size, of)


def export() -> None:
    """Send traces and metrics to the OTLP collector (HTTP) that OpenTelemetry's own settings name, unless
    somebody provides for that already."""
    from opentelemetry import metrics
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    resource = Resource.create({"service.name": _NAME, "service.version": __version__})
    tracer = TracerProvider(resource=resource)
    tracer.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracer)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    metrics.set_meter_provider(MeterProvider(resource=resource, metric_readers=[reader]))
