"""What is sent to an OpenTelemetry collector: log records, steps and samples as the SDK's own objects, and their way to it.

Every id is made from the session alone, so that a batch that is sent a second time is the same batch.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import requests
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics.export import Gauge, Metric, MetricsData, NumberDataPoint, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.util.re import parse_env_headers

from .. import __version__
from ..issues import Machine, Privacy
from ..log import Damage, LogEntry
from .reconstruct import SessionView

_SERVICE = "pytest-openscope"
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SEVERITIES = {
    "DEBUG": SeverityNumber.DEBUG,
    "INFO": SeverityNumber.INFO,
    "WARNING": SeverityNumber.WARN,
    "ERROR": SeverityNumber.ERROR,
    "CRITICAL": SeverityNumber.FATAL,
}
#: Answers that refuse the data itself; every other one, and none, is an outage.
_REFUSALS = (400, 413, 422)


class OutageError(Exception):
    """The collector takes nothing at the moment; the text says why, in words that go on from its address."""


class Step(NamedTuple):
    """A step that is over, or the whole session (without a phase); times in seconds since the epoch."""

    phase: str
    step: str
    number: int
    started: float
    ended: float
    outcome: str


def steps_of(view: SessionView) -> list[Step]:
    """Return the steps that are over, and the session once it has ended.

    A step that is ended once more, since a fixture failed afterwards, has another number from then on.
    """
    stopped = str(view.died.get("stopped") or view.died["at"]) if view.died else ""
    found: list[Step] = []
    numbers: Counter[tuple[str, str]] = Counter()
    for one in view.steps:
        ends = one.get("ends") or ([stopped] if stopped and not one.get("rescued") else [])
        key = (str(one["phase"]), str(one["step"]))
        numbers[key] += len(ends)
        if ends:
            outcome = "crashed" if "ends" not in one else one["outcome"] or ("skipped" if one["skipped"] else "passed")
            begun = _seconds(one["at"])
            found.append(Step(*key, numbers[key] - 1, begun, max(begun, _seconds(ends[-1])), str(outcome)))
    if view.ended is not None and view.session is not None:
        times = _seconds(str(view.value("started"))), _seconds(stopped or view.ended["at"])
        found.append(Step("", "", 0, *times, str(view.ended["outcome"])))
    return found


class SessionData:
    """One session's log records, steps and samples as OpenTelemetry has them; subject and user only if ``names_people``."""

    def __init__(self, view: SessionView, names_people: bool) -> None:
        self.view = view
        subject, user = view.value("subject_id"), view.value("user_id")
        hidden = {} if names_people else {"subject_id": subject, "user_id": user}
        self._mask = Privacy(machine=Machine(), **hidden).private
        seed = "|".join([view.uuid, *(str(view.value(key, "")) for key in ("started", "host", "rig_id"))])
        self.trace_id = _number(seed, 16)
        self.root = SpanContext(self.trace_id, self._span_id("", "", 0), False, _SAMPLED)
        attributes: dict[str, Any] = {
            "service.name": _SERVICE,
            "service.version": str(view.value("version", __version__)),
            "service.instance.id": self._text(view.uuid),
            "host.name": str(view.value("host", "")),
            "openscope.rig": self._text(str(view.value("rig_id", ""))),
            "openscope.session": self._text(view.uuid),
            "openscope.dry_run": bool(view.value("dry_run")),
        }
        if names_people:
            attributes |= {"openscope.subject": str(subject or ""), "openscope.user": str(user or "")}
        self.resource = Resource.create(attributes)

    def log_record(self, entry: LogEntry | Damage) -> ReadableLogRecord:
        """Return one record of the session log; a part that is no record comes as its text, so that nothing is left out."""
        attributes: dict[str, Any] = {
            "log.record.uid": str(uuid.UUID(int=_number(f"{self.trace_id}|{entry.offset}", 16))),
            "openscope.log.offset": entry.offset,
        }
        if isinstance(entry, Damage):
            attributes["openscope.log.damage"] = entry.kind
            text, root = self._text(entry.text), self.root
            record = LogRecord(trace_id=root.trace_id, span_id=root.span_id, body=text, attributes=attributes)
            return ReadableLogRecord(record, self.resource, InstrumentationScope(_SERVICE))
        if entry.phase:
            attributes["openscope.phase"] = self._text(entry.phase)
        if entry.step:
            attributes["openscope.step"] = self._text(entry.step)
        at_ns = _nanoseconds(entry.timestamp.timestamp())
        record = LogRecord(
            timestamp=at_ns,
            observed_timestamp=at_ns,
            trace_id=self.trace_id,
            span_id=self._span_id(entry.phase, entry.step, 0) if entry.step else self.root.span_id,
            trace_flags=_SAMPLED,
            severity_text=entry.level,
            severity_number=_SEVERITIES.get(entry.level, SeverityNumber.UNSPECIFIED),
            body=self._text(entry.message),
            attributes=attributes,
        )
        return ReadableLogRecord(record, self.resource, InstrumentationScope(self._text(entry.logger) or _SERVICE))

    def span(self, step: Step) -> tuple[str, ReadableSpan]:
        """Return a span with its id in hexadecimal digits."""
        whole = not step.step
        context = SpanContext(self.trace_id, self._span_id(step.phase, step.step, step.number), False, _SAMPLED)
        attributes: dict[str, Any] = {"openscope.outcome": step.outcome}
        if not whole:
            attributes |= {"openscope.phase": self._text(step.phase), "openscope.step": self._text(step.step)}
        good = step.outcome in ("passed", "skipped")
        span = ReadableSpan(
            name=self._text(step.step) or "session",
            context=context,
            parent=None if whole else self.root,
            resource=self.resource,
            attributes=attributes,
            status=Status(StatusCode.OK) if good else Status(StatusCode.ERROR, step.outcome),
            start_time=_nanoseconds(step.started),
            end_time=_nanoseconds(step.ended),
            instrumentation_scope=InstrumentationScope(_SERVICE, __version__),
        )
        return f"{context.span_id:016x}", span

    def metrics(self, samples: Sequence[dict[str, Any]]) -> MetricsData:
        """Return resource samples as gauges."""
        points: dict[tuple[str, str], list[NumberDataPoint]] = {}
        for sample in samples:
            at_ns = _nanoseconds(_seconds(str(sample["timestamp"])))
            for name, unit, value, attributes in _values(sample):
                points.setdefault((name, unit), []).append(NumberDataPoint(attributes, 0, at_ns, value))
        metrics = [Metric(name, "", unit, Gauge(found)) for (name, unit), found in points.items()]
        scope = ScopeMetrics(InstrumentationScope(_SERVICE, __version__), metrics, "")
        return MetricsData([ResourceMetrics(self.resource, [scope], "")] if metrics else [])

    def _text(self, text: str) -> str:
        return self._mask(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))

    def _span_id(self, phase: str, step: str, number: int) -> int:
        return _number(f"{self.trace_id}|{phase}|{step}|{number}", 8)


def _values(sample: dict[str, Any]) -> list[tuple[str, str, float, dict[str, str]]]:
    """Return name, unit, value and attributes of each number in a sample; 1 of ``process.cpu.utilization`` is one core."""
    found: list[tuple[str, str, float, dict[str, str]]] = []
    for process, key in (("experiment", "launcher"), ("acquisition", "acquisition")):
        part, of = sample.get(key) or {}, {"openscope.process": process}
        if part:
            found.append(("process.cpu.utilization", "1", part["cpu_percent"] / 100, of))
            found.append(("process.memory.usage", "By", int(part["memory_mb"] * 2**20), of))
    system = sample.get("system") or {}
    if system:
        found.append(("system.cpu.utilization", "1", system["cpu_percent"] / 100, {}))
        found.append(("system.memory.utilization", "1", system["memory"]["percent"] / 100, {}))
        found.append(("system.filesystem.utilization", "1", system["disk"]["percent"] / 100, {}))
        found.append(("openscope.disk.free", "GBy", system["disk"]["free_gb"], {}))
    return found


class Collector:
    """The collector, through the SDK's exporters.

    Args:
        warn: gets what people should know and nothing waits for.
        beat: called before each request.
    """

    def __init__(self, settings: dict[str, Any], warn: Callable[[str], None], beat: Callable[[], None]) -> None:
        self._warn, self._beat = warn, beat
        self._answer: requests.Response | None = None
        session = requests.Session()
        session.hooks["response"].append(self._hear)
        headers = parse_env_headers(os.environ.get(settings["headers_env"], ""), liberal=True)
        common: dict[str, Any] = {"headers": headers, "timeout": float(settings["timeout_s"]), "session": session}
        address = str(settings["endpoint"]).rstrip("/")
        logs = OTLPLogExporter(f"{address}/v1/logs", **common)
        traces = OTLPSpanExporter(f"{address}/v1/traces", **common)
        metrics = OTLPMetricExporter(f"{address}/v1/metrics", **common)
        self._export: dict[str, Callable[[Any], Any]] = {
            "logs": logs.export,
            "traces": traces.export,
            "metrics": metrics.export,
        }

    def send(self, signal: str, items: Sequence[Any], build: Callable[[Sequence[Any]], Any] = list) -> int:
        """Send as many of the items, from the first on, as the collector takes at once; return how many are settled.

        A batch that it refuses is sent in halves. A single item that it refuses before and after it has taken an empty batch is
        left out and told: all that follow would wait for it for ever.

        Raises:
            OutageError: the collector takes nothing.
        """
        takes_others = False
        while not self._accepts(signal, build(items)):
            status = self._answer.status_code if self._answer is not None else None
            if status not in _REFUSALS:
                raise OutageError("does not answer" if status is None else f"answers {status}")
            if len(items) > 1:
                items = items[: len(items) // 2]
            elif takes_others:
                self._warn(f"the collector refuses one of the {signal} with {status}; it is left out")
                return 1
            elif self._accepts(signal, build([])):
                takes_others = True  # Perhaps since this moment: the item has another try.
            else:
                raise OutageError(f"answers {status}")
        self._tell_of_rejected(signal)
        return len(items)

    def _accepts(self, signal: str, batch: Any) -> bool:
        self._answer = None
        self._beat()
        result = self._export[signal](batch)
        return str(result.name) == "SUCCESS"

    def _hear(self, answer: requests.Response, *args: Any, **kwargs: Any) -> None:
        self._answer = answer

    def _tell_of_rejected(self, signal: str) -> None:
        """Tell of items that the collector did not take from a batch that it took: it must not be sent those again."""
        kinds: dict[str, tuple[Any, str]] = {
            "logs": (ExportLogsServiceResponse, "rejected_log_records"),
            "traces": (ExportTraceServiceResponse, "rejected_spans"),
            "metrics": (ExportMetricsServiceResponse, "rejected_data_points"),
        }
        kind, field = kinds[signal]
        try:
            partial = kind.FromString(self._answer.content if self._answer is not None else b"").partial_success
        except Exception:
            return  # an answer in another format, which says nothing that counts
        rejected = getattr(partial, field)
        if rejected:
            self._warn(f"the collector left out {rejected} of the {signal}: {partial.error_message}")


def _number(seed: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest()[:size], "big") or 1


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e6) * 1000
