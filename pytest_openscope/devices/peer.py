"""A scripted peer: the other end of a line, played from a YAML file in the manner of pyvisa-sim.

::

    terminator: "\\n"
    error: "ERR"                       # answer to what no entry matches; without it the peer is silent
    dialogues:
      - {q: "*IDN?", r: "LICKSPOUT 1.0"}
      - {q: "COUNT?", r: ["0", "1", "2"]}       # one after the other, the last one for good
      - {q: "SLOW?", r: "OK", delay_s: 0.2}
    properties:
      threshold: {default: 20, getter: {q: "THR?", r: "{}"}, setter: {q: "THR {}", r: "OK"}, min: 0, max: 255}
    unsolicited:
      - {every_s: 0.5, r: "LICK"}
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

from ..config import read_mapping
from ..records import Mistake

#: How often a server looks whether it shall end.
_LOOK_S = 0.02
_KEYS = {"terminator", "encoding", "error", "dialogues", "properties", "unsolicited", "spec", "echo"}


class Script:
    """What the peer knows to answer.

    Raises:
        ValueError: the mapping holds what is no script, with key and reason.
    """

    def __init__(self, content: Mapping[str, Any], name: str = "script") -> None:
        unknown = set(content) - _KEYS
        if unknown:
            raise ValueError(
                f"{name}: unknown {', '.join(sorted(map(str, unknown)))}; a script knows {', '.join(sorted(_KEYS))}"
            )
        self.name = name
        self.terminator = str(content.get("terminator", "\n"))
        self.encoding = str(content.get("encoding", "utf-8"))
        self.error = content.get("error")
        self.echo = bool(content.get("echo", False))
        self.unsolicited = [(float(item["every_s"]), str(item["r"])) for item in content.get("unsolicited") or ()]
        self.values: dict[str, str] = {}
        self._lock = threading.Lock()
        self._rules: list[tuple[re.Pattern[str], Callable[[re.Match[str]], Any], float]] = []
        for entry in content.get("dialogues") or ():
            if not isinstance(entry, dict) or "q" not in entry:
                raise ValueError(f"{name}: a dialogue needs 'q': {entry!r}")
            self._rules.append(
                (re.compile(re.escape(str(entry["q"]))), _dialogue(entry.get("r")), float(entry.get("delay_s", 0)))
            )
        for key, entry in (content.get("properties") or {}).items():
            self._add_property(str(key), entry)

    @classmethod
    def read(cls, source: Path | Mapping[str, Any]) -> Script:
        """Read a script from a file, or take one that is written out.

        Raises:
            ValueError: it cannot be read, is not YAML, or not a script.
        """
        if isinstance(source, Mapping):
            return cls(source, "written out")
        content = read_mapping(source, source.name, "script", [])
        if isinstance(content, Mistake):
            raise ValueError(str(content))
        return cls(content, source.name)

    def _add_property(self, key: str, entry: dict[str, Any]) -> None:
        self.values[key] = str(entry.get("default", ""))
        getter, setter = entry.get("getter"), entry.get("setter")
        if getter:
            answer = str(getter.get("r", "{}"))
            self._rules.append(
                (_pattern(str(getter["q"])), lambda _: _PLACE.sub(lambda _m: self.values[key], answer), 0.0),
            )
        if setter:
            pattern = _pattern(str(setter["q"]))
            if not pattern.groups:
                raise ValueError(f"properties.{key}.setter.q: {setter['q']!r} has no {{}} where the value stands")

            def change(match: re.Match[str]) -> Any:
                if not _within(match[1], entry.get("min"), entry.get("max")):
                    return setter.get("e", self.error)
                self.values[key] = match[1]
                return setter.get("r")

            self._rules.append((pattern, change, 0.0))

    def answer(self, query: str) -> str | None:
        """Return the answer to one line, or None where the peer keeps silent."""
        with self._lock:
            matches = ((pattern.fullmatch(query), rule, delay_s) for pattern, rule, delay_s in self._rules)
            said = ((rule(match), delay_s) for match, rule, delay_s in matches if match)
            text, delay_s = next(said, (query if self.echo else self.error, 0.0))
        # Outside the lock: a slow answer to one question holds up no other.
        time.sleep(delay_s)
        return None if text is None else str(text)


_PLACE = re.compile(r"\{[^{}]*\}")


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile("(.*?)".join(re.escape(part) for part in _PLACE.split(text)))


def _dialogue(answers: Any) -> Callable[[re.Match[str]], Any]:
    *first, last = answers if isinstance(answers, list) else [answers]
    left = iter(first)
    return lambda _: next(left, last)


def _within(value: str, low: float | None, high: float | None) -> bool:
    if low is None and high is None:
        return True
    try:
        number = float(value)
    except ValueError:
        return False
    return (low is None or number >= low) and (high is None or number <= high)


class LinePeer:
    """Plays a script over a pair of byte functions."""

    def __init__(self, script: Script, receive: Callable[[], bytes], send: Callable[[bytes], object]) -> None:
        self._script, self._receive, self._send = script, receive, send
        self._ended = threading.Event()
        self._sending = threading.Lock()

    def play(self) -> None:
        """Listen until nothing comes any more, and say meanwhile what the script says without being asked."""
        for every_s, text in self._script.unsolicited:
            threading.Thread(target=self._tell, args=(every_s, text), name="peer-tells", daemon=True).start()
        end, rest = self._script.terminator.encode(self._script.encoding), b""
        try:
            while data := self._receive():
                *lines, rest = (rest + data).split(end)
                for line in lines:
                    answer = self._script.answer(line.decode(self._script.encoding, "replace").strip("\r\n"))
                    if answer is not None:
                        self._write(answer)
        except (OSError, ValueError):
            pass
        self._ended.set()

    def _tell(self, every_s: float, text: str) -> None:
        try:
            while not self._ended.wait(every_s):
                self._write(text)
        except (OSError, ValueError):
            pass

    def _write(self, text: str) -> None:
        with self._sending:
            self._send((text + self._script.terminator).encode(self._script.encoding))


class LoopbackServer(ThreadingTCPServer):
    """Serves a port of this PC, each connection in a thread of its own."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, handler: type[StreamRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.place = f"127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(_LOOK_S,), name="peer", daemon=True).start()

    def handle_error(self, *_: object) -> None:
        """A client that has given up waiting is no news."""

    def close(self) -> None:
        """Take no more connections."""
        self.shutdown()
        self.server_close()


def serve_lines(script: Script) -> LoopbackServer:
    """Serve a script: pyserial's ``serial_for_url`` opens ``socket://`` and the server's ``place``."""

    class Handler(StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self) -> None:
            LinePeer(script, partial(self.connection.recv, 4096), self.connection.sendall).play()

    return LoopbackServer(Handler)
