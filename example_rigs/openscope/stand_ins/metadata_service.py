"""Stands for the lab's metadata service: python stand_ins/metadata_service.py [PORT]"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROJECTS = ["OpenScope oddball", "Ophys Platform - SLAP2"]


class Handler(BaseHTTPRequestHandler):
    """Knows every subject, and two projects."""

    def do_GET(self) -> None:
        kind, _, name = self.path.removeprefix("/api/v2/").partition("/")
        answers = {
            "subject": {"subject_id": name, "species": {"name": "Mus musculus"}, "sex": "Female"},
            "procedures": {"subject_id": name, "subject_procedures": []},
            "project_names": PROJECTS,
        }
        body = json.dumps(answers.get(kind, {"message": "not found"})).encode("utf-8")
        self.send_response(200 if kind in answers else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet: the sessions' logs say what they asked."""


def serve(port: int) -> ThreadingHTTPServer:
    """Return a server on loopback; port 0 takes a free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    serve(int(sys.argv[1]) if len(sys.argv) > 1 else 8765).serve_forever()
