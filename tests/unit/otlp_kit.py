"""An OTLP/HTTP receiver on loopback that decodes what comes with opentelemetry-proto."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_KINDS = {
    "/v1/logs": ExportLogsServiceRequest,
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
}


def plain(attributes: Any) -> dict[str, Any]:
    """Return OTLP attributes as a dict."""
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in attributes}


class Receiver:
    """Takes requests until :meth:`close`; ``answer`` gives the status of each (0: hang up without one).

    What was answered with 200 stands in ``accepted``, everything in ``requests``.
    """

    def __init__(self, port: int = 0) -> None:
        self.requests: list[tuple[str, Any, dict[str, str]]] = []
        self.accepted: list[tuple[str, Any]] = []
        self.answer: Callable[[str, Any], int] = lambda path, request: 200
        self.reply = b""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                request: Message = _KINDS[self.path].FromString(body)
                receiver.requests.append((self.path, request, dict(self.headers)))
                status = receiver.answer(self.path, request)
                if not status:
                    self.close_connection = True
                    return
                if status == 200:
                    receiver.accepted.append((self.path, request))
                self.send_response(status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(receiver.reply)))
                self.end_headers()
                self.wfile.write(receiver.reply)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _of(self, path: str) -> list[Any]:
        return [request for where, request in list(self.accepted) if where == path]

    @property
    def records(self) -> list[tuple[dict[str, Any], str, Any]]:
        """Resource attributes, scope name and record of each accepted log record, in the order of the log."""
        found = [
            (plain(one.resource.attributes), scope.scope.name, record)
            for request in self._of("/v1/logs")
            for one in request.resource_logs
            for scope in one.scope_logs
            for record in scope.log_records
        ]
        return sorted(found, key=lambda one: (one[0]["openscope.session"], plain(one[2].attributes)["openscope.log.offset"]))

    @property
    def bodies(self) -> list[str]:
        return [record.body.string_value for _, _, record in self.records]

    @property
    def uids(self) -> list[str]:
        return [plain(record.attributes)["log.record.uid"] for _, _, record in self.records]

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self._of("/v1/traces")
            for one in request.resource_spans
            for scope in one.scope_spans
            for span in scope.spans
        ]

    @property
    def points(self) -> list[tuple[str, dict[str, Any], int, float]]:
        """Name, attributes, time in ns and value of each accepted data point."""
        return [
            (metric.name, plain(point.attributes), point.time_unix_nano, getattr(point, str(point.WhichOneof("value"))))
            for request in self._of("/v1/metrics")
            for one in request.resource_metrics
            for scope in one.scope_metrics
            for metric in scope.metrics
            for point in metric.gauge.data_points
        ]
