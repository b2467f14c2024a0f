"""Spans and metrics of OpenTelemetry: ``instrument(ns)``. Extra ``otel``, which is the API alone.

A subscriber makes them of the events of a client; nothing of it is imported before it is used. What becomes a span, an
attribute or a metric, and what is left out and why, is in the guide, ``docs/opentelemetry.md``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

from nudgescribe_async.client import Nudgescribe
from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.options import RESERVED_HEADERS, CallOptions

try:
    from opentelemetry import metrics, trace

    from nudgescribe_async.otel import names
    from nudgescribe_async.otel.measures import Measures
    from nudgescribe_async.otel.spans import Spans
except ModuleNotFoundError as error:  # pragma: no cover - the tests have it; one shows this in a process of its own
    if not (error.name or "").startswith("opentelemetry"):
        raise
    raise ConfigurationError(
        'Spans and metrics need the API of OpenTelemetry: pip install "nudgescribe_async[otel]".'
    ) from None

from nudgescribe_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from nudgescribe_async.events import Event, SpanEvent

__all__ = ["Instrumentation", "instrument"]

_LOGGER = logging.getLogger("nudgescribe_async.otel")
_INSTRUMENTED: WeakKeyDictionary[Nudgescribe, tuple[object, Instrumentation]] = WeakKeyDictionary()
"""Each client with what it was asked for, and what came of it. A client that is let go of takes its entry with it."""


def instrument(
    ns: Nudgescribe,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    propagate: bool = True,
) -> Instrumentation:
    """Have a client tell OpenTelemetry what it does: spans, metrics, and the context in the headers of its requests.

    To be called in the event loop of the client, or before its first call. Calls and jobs that are under way are left
    out; those that begin from now on are in. Any number of clients may be instrumented, each by itself.

    Called again with the same client it changes nothing, and gives the same ``Instrumentation``. A closed client makes no
    calls, so there is nothing to tell; nor is anything left to end, as all calls have ended then.

    Whatever a provider, a processor, a sampler or a propagator raises harms no call: it is logged once, as a warning of
    ``nudgescribe_async.otel``.

    Args:
        ns: the client.
        tracer_provider: makes the spans; the global one if left out.
        meter_provider: makes the metrics; the global one if left out.
        propagate: whether requests to the service carry the context, as the global propagator writes it
            (``traceparent`` and ``tracestate`` by default). Baggage is never sent, and requests by signed URL to other hosts
            carry nothing.

    Returns:
        What ends it: ``uninstrument()``, or the end of a ``with`` block.

    Raises:
        TypeError: ``ns`` is no ``Nudgescribe``.
        ConfigurationError: the client is instrumented already, and with other arguments.
    """
    if not isinstance(cast("object", ns), Nudgescribe):
        kind = type(ns)
        raise TypeError(
            f"ns must be a nudgescribe_async.Nudgescribe, not {kind.__module__}.{kind.__qualname__}. Of a blocking client, "
            "instrument the one that ns.run(...) gives to a function of yours."
        )
    asked = (tracer_provider, meter_provider, propagate)
    before, known = _INSTRUMENTED.get(ns, (None, None))
    if known is not None and known.active:
        if before != asked:
            raise ConfigurationError(
                "The client is instrumented already, with other arguments: call uninstrument() of what that gave first."
            )
        return known
    instrumentation = Instrumentation(ns, *asked)
    _INSTRUMENTED[ns] = (asked, instrumentation)
    return instrumentation


class Instrumentation:
    """What ``instrument`` has set up. As a context manager it ends it.

    Attributes:
        active: whether calls that begin now are told.
    """

    def __init__(
        self,
        ns: Nudgescribe,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        propagate: bool,
    ) -> None:
        """Made by ``instrument``."""
        session = ns._session  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the funnel is no part of the face
        self._spans = Spans(
            trace.get_tracer("nudgescribe_async", __version__, tracer_provider, schema_url=names.SCHEMA_URL),
            session.clock,
        )
        self._measures = Measures(
            metrics.get_meter("nudgescribe_async", __version__, meter_provider, schema_url=names.SCHEMA_URL)
        )
        self.active = True
        self._said: set[str] = set()
        self._unsubscribe = ns.events.subscribe(self._hear, spans=True)
        self._end_headers = session.add_headers(self._headers) if propagate else None

    def uninstrument(self) -> None:
        """Tell nothing of what begins from now on. May be called more than once.

        Spans of calls and jobs that are under way are ended when these end, so that none is cut off or left open. To be
        called in the event loop of the client.
        """
        self.active = False
        self._leave_if_done()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.uninstrument()

    def _hear(self, event: Event | SpanEvent) -> None:
        for listener in (self._spans, self._measures):
            try:
                listener.hear(event, begins=self.active)
            except Exception as error:  # noqa: BLE001 - what OpenTelemetry cannot do is no affair of a call
                self._say_failure(error)
        if not self.active:
            self._leave_if_done()

    def _headers(self, call: int) -> Mapping[str, str]:
        try:
            headers = self._spans.headers(call)
            reserved = sorted(name for name in headers if name.lower() in RESERVED_HEADERS)
            if reserved:
                text = "A propagator of OpenTelemetry sets %s, which none may; it is left out, and this is said once."
                self._say_once(text, ", ".join(reserved))
            # Checked here as well as by the session, which would log at each request what is wrong with them.
            return CallOptions(headers={name: headers[name] for name in headers if name not in reserved}).headers
        except Exception as error:  # noqa: BLE001 - as above
            self._say_failure(error)
            return {}

    def _leave_if_done(self) -> None:
        if not self._spans.open and not self._measures.open:
            self._unsubscribe()
            if self._end_headers is not None:
                self._end_headers()

    def _say_failure(self, error: Exception) -> None:
        # Not its text, which may be of anything.
        self._say_once("OpenTelemetry failed with %s; the calls go on, and this is said once.", type(error).__name__)

    def _say_once(self, text: str, what: str) -> None:
        if text not in self._said:
            self._said.add(text)
            _LOGGER.warning(text, what)
