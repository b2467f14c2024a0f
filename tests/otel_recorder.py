"""The SDK of OpenTelemetry with everything kept in memory, and what the tests ask of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from nudgescribe_async.otel import Instrumentation, instrument
from nudgescribe_async.transport.aiohttp import AiohttpTransport

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span

    from nudgescribe_async import Nudgescribe, Request, Response


class _Balance(SpanProcessor):
    def __init__(self) -> None:
        self.open: dict[int, str] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - of the protocol
        assert span.context is not None
        self.open[span.context.span_id] = span.name

    def on_end(self, span: ReadableSpan) -> None:
        assert span.context is not None
        del self.open[span.context.span_id]  # a KeyError if it ends twice


class Recorder:
    """Keeps all spans and metrics of a test."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._balance = _Balance()
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(sampler=sampler)
        self.tracer_provider.add_span_processor(self._balance)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider([self._reader])

    def on(self, ns: Nudgescribe, **options: Any) -> Instrumentation:
        return instrument(ns, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider, **options)

    @property
    def open(self) -> list[str]:
        """The names of spans that have begun and not ended."""
        return [*self._balance.open.values()]

    @property
    def spans(self) -> list[ReadableSpan]:
        """In the order in which they began."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def of(self, operation: str) -> list[ReadableSpan]:
        """The spans of the calls of an operation."""
        return [span for span in self.spans if span.kind.name == "CLIENT" and value(span, "operation") == operation]

    def child_names(self, parent: ReadableSpan) -> Counter[str]:
        return Counter(span.name for span in self.spans if parent_of(span) == own_id(parent))

    def metrics(self) -> dict[str, Any]:
        """The metrics by name."""
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def sums(self, name: str, *labels: str) -> dict[Any, float]:
        """The sum of a counter, or the count of a histogram, by the values of labels."""
        found: Counter[Any] = Counter()
        metric = self.metrics().get(name)
        for point in metric.data.data_points if metric is not None else ():
            key = tuple(point.attributes.get(label) for label in labels)
            found[key[0] if len(key) == 1 else key] += point.count if hasattr(point, "count") else point.value
        return dict(found)

    def everything(self) -> str:
        """All that was exported, as text."""
        data = self._reader.get_metrics_data()
        return "\n".join([*(span.to_json() for span in self.spans), data.to_json() if data is not None else ""])


def value(span: ReadableSpan, name: str) -> Any:
    """An attribute of ours, by the end of its name, or one of the conventions."""
    attributes = span.attributes or {}
    return attributes.get(f"nudgescribe.{name}", attributes.get(name))


def own_id(span: ReadableSpan) -> int:
    assert span.context is not None
    number: int = span.context.span_id
    return number


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def status(span: ReadableSpan) -> str:
    assert span.status.description is None
    return span.status.status_code.name


def events(span: ReadableSpan, name: str) -> list[dict[str, Any]]:
    """The attributes of the span's events of a name, without what begins all of their names."""
    return [
        {key.removeprefix("nudgescribe."): item for key, item in (event.attributes or {}).items()}
        for event in span.events
        if event.name == f"nudgescribe.{name}"
    ]


class Listening(AiohttpTransport):
    """The transport of every client, which keeps what it sends."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Request] = []

    async def send(self, request: Request) -> Response:
        self.sent.append(request)
        return await super().send(request)
