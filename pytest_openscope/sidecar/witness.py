"""Ends a session whose experiment process cannot: stops what still acquires, then writes the states. At once from the sidecar,
later from the recovery.

Everything can be repeated: killed in the middle, the next one to finish the session doubles nothing. Each line's position in
the session log is in the witness's journal before the line is written, lines of the acquisition are counted in the log, and
parts that are complete are marked as done.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from ..log import CLOCK_LOGGER, ExactMasker, LogWriter, encode_batch, head, last_lines, mask_json, read_log, repair_tail
from ..records import (
    DEBUG_STATE,
    END_STATE,
    METADATA,
    Failure,
    Journal,
    Outcome,
    SessionRecord,
    debug_state,
    drop_empty_spare,
    end_state,
    json_safe,
    to_json,
)
from ..system import (
    RELEASE_TERMINAL,
    ProcessTree,
    StopPolicy,
    command_line,
    find_main,
    now_iso,
    read_json,
    remove_file,
    spawn_detached,
    start_of,
    time_field,
    write_json,
)
from .notes import mark_crashed
from .reconstruct import AcquisitionView, SessionView, failure_of_death, record_of
from .samples import RESOURCE_USAGE, read_samples

LOGGER = "pytest_openscope.witness"
FOOTER_LOGGER = "pytest_openscope.session"
#: Kept free by the session for its final states.
RESERVE = ".reserved_for_the_end"
SAFE_STATE_LOG = "safe_state.log"
_STOP_SPARE_S = 10.0
_DEFAULT_SAFE_STATE_S = 10.0
#: A process that was being started when its session died shows its mark within this time.
_UNANNOUNCED_S = 1.0
_LOOK_AGAIN_S = 0.05
_LAST_SAMPLES = 12
#: Lines of the log among which one has a time: a message, or a line of a child, may have many without.
_TAIL_LINES = 1000
#: A newer line by less was only written by another process.
_CLOCK_BACK_S = 0.02


class Witness:
    """One attempt at finishing one session, whose experiment process is gone for good.

    Args:
        view: the session's journal, read to its end.
        journal: the witness's own journal, whose lock the caller holds.
        secrets: exact values to mask.
        recovered: True when this happens long after the death.
    """

    def __init__(self, view: SessionView, journal: Journal, secrets: Iterable[str], recovered: bool = False) -> None:
        self.view, self.journal, self.recovered = view, journal, recovered
        self.secrets = frozenset(secrets)
        self.mask = ExactMasker(self.secrets)
        self.helper_failures: list[str] = []
        self.unsafe: list[str] = []
        self.stops: dict[str, Any] = {}
        self.log: LogWriter | None = None

    def finish(self, exit_code: int | None = None, known: Iterable[tuple[int, float]] = (), terminal: str = "") -> None:
        """Stop what still runs, bring the log to its end and write the states; the session's ``ended`` is in the journal then.

        Args:
            exit_code: of the experiment process, a signal negative; None when nobody knows.
            known: pid and start time of processes seen in an acquisition's tree.
            terminal: device on which to tell the operator, empty for none.
        """
        view = self.view
        if view.died is None:
            stopped = now_iso()
            changed = [path.stat().st_mtime for path in (view.log_path, view.path) if path.exists()]
            if self.recovered and changed:
                # When the session was last heard of.
                stopped = time_field(max(changed))
            self.journal.write("died", exit_code=exit_code, stopped=stopped, recovered=self.recovered)
            view.read()
        elif exit_code is None:
            exit_code = view.died.get("exit_code")
        if view.death is None:
            described = to_json(failure_of_death(view, exit_code))
            self.journal.write("death", failure=mask_json(json_safe(described), self.mask))
            view.read()
        failure = view.death
        assert failure is not None
        self._guard("looking for unannounced processes", self._find_unannounced)
        stopping: list[threading.Thread] = []
        self._guard("stopping the acquisition", lambda: stopping.extend(self._begin_to_stop(list(known))))
        self._guard("opening the session log", self._open_log)
        who = "A later session on this rig" if self.recovered else "The sidecar"
        story = f"{failure.message}. {who} finishes the session in its place.\n{failure.traceback}"
        self.say("died", "ERROR", story.rstrip("\n"))
        for thread in stopping:
            thread.join(self._policy.longest_s + _STOP_SPARE_S)
        for acquisition in view.acquisitions.values():
            self._guard(f"reading the output of {acquisition.name}", partial(self._take_output, acquisition))
            self._tell_stop(acquisition)
        self._make_safe()
        self._write_end(failure, exit_code)
        if terminal:
            self._guard("telling the operator", lambda: self._tell_operator(terminal, failure))

    def _guard(self, what: str, action: Callable[[], object]) -> bool:
        try:
            action()
            return True
        except Exception as error:
            print(f"{what} failed\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            self.helper_failures.append(f"witness: {what}: {type(error).__name__}: {error}")
            return False

    # -- the log -----------------------------------------------------------------------------------------------------

    def _open_log(self) -> None:
        remove_file(self.view.folder / METADATA / RESERVE)
        path = self.view.log_path
        torn = repair_tail(path)
        if torn:
            print(f"cut {len(torn)} bytes of a torn line off the session log", file=sys.stderr, flush=True)
        self.log = LogWriter(path)
        if (behind_s := _newest_time(path) - time.time()) > _CLOCK_BACK_S:
            text = f"the computer's clock was set back since the line before, by {behind_s:.1f} s at least"
            self.say("clock", "WARNING", text, CLOCK_LOGGER)

    def say(self, key: str, level: str, text: str, logger: str = LOGGER) -> None:
        """Write one line into the session log, once, however often the ending is repeated."""
        log = self.log
        if log is None:
            print(f"{level} {text}", file=sys.stderr, flush=True)
            return
        if key in self.view.said:
            first = next(read_log(log.path, start=self.view.said[key]), None)
            if first is not None and first.logger == logger:
                return
        self.journal.write("witness_line", key=key, log_size=log.size)
        self.view.said[key] = log.size
        log.record(level, logger, self.mask(text), *self._place)

    @property
    def _place(self) -> tuple[str, str]:
        step = self.view.running or {"phase": "", "step": ""}
        return step["phase"], step["step"]

    # -- the hardware ------------------------------------------------------------------------------------------------

    def _find_unannounced(self) -> None:
        """Find the processes that the session was about to start when it died, and had not yet named in its journal."""
        unannounced = {name: view for name, view in self.view.acquisitions.items() if "pid" not in view.started}
        if not unannounced:
            return
        mark = str(self.view.value("session_folder", self.view.folder))
        until = time.monotonic() + (_UNANNOUNCED_S if self.view.same_boot and not self.recovered else 0.0)
        while unannounced:
            for name, view in list(unannounced.items()):
                with contextlib.suppress(psutil.Error, OSError):
                    process = find_main(mark, name) if self.view.same_boot else None
                    if process is not None:
                        view.started.update(pid=process.pid, create_time=start_of(process))
                        del unannounced[name]
            if time.monotonic() >= until:
                break
            time.sleep(_LOOK_AGAIN_S)
        for name, view in unannounced.items():
            raw = [self.view.folder / str(view.started.get(stream)) for stream in ("stdout", "stderr")]
            if not any(path.is_file() and path.stat().st_size for path in raw):
                del self.view.acquisitions[name]

    def _begin_to_stop(self, known: list[tuple[int, float]]) -> list[threading.Thread]:
        """Begin to stop the trees of the acquisitions that nobody saw end, all at once."""
        if self.view.value("on_crash", "stop") == "leave" or not self.view.same_boot:
            return []
        threads = []
        for acquisition in self.view.acquisitions.values():
            if acquisition.finished is None and acquisition.pid > 0:
                action = (f"stopping {acquisition.name}", partial(self._stop, acquisition, known))
                threads.append(threading.Thread(target=self._guard, args=action, daemon=True))
                threads[-1].start()
        return threads

    @property
    def _policy(self) -> StopPolicy:
        return StopPolicy(**self.view.value("stop", {}))

    def _stop(self, acquisition: AcquisitionView, known: list[tuple[int, float]]) -> None:
        tree = ProcessTree(
            acquisition.pid,
            acquisition.create_time,
            pgid=acquisition.pid if sys.platform != "win32" else None,
            session_mark=str(self.view.value("session_folder", self.view.folder)),
            name=acquisition.name,
        )
        reports = [tree.stop(self._policy), *(ProcessTree(pid, started).stop(self._policy) for pid, started in known)]
        self.stops[acquisition.name] = {
            "stopped": [name for report in reports for name in report.stopped],
            "survivors": [name for report in reports for name in report.survivors],
            "request": reports[0].request,
        }

    def _tell_stop(self, acquisition: AcquisitionView) -> None:
        name, found = acquisition.name, self.stops.get(acquisition.name)
        if acquisition.finished is not None:
            return
        if acquisition.is_call and self.view.same_boot:
            what = command_line([str(part) for part in acquisition.started.get("command") or ()])
            text = f"{name}: what the session called may go on, and nobody can stop it from here: {what}"
            self.say(f"left {name}", "WARNING", text)
        if acquisition.pid <= 0:
            return
        if found is None:
            if self.view.same_boot and self.view.value("on_crash", "stop") == "leave":
                state = "goes on" if acquisition.lives else "is gone"
                self.say(f"left {name}", "WARNING", f"{name} (pid {acquisition.pid}) {state}: on_crash is leave")
            return
        if found["survivors"]:
            self.helper_failures.append(f"could not stop {', '.join(found['survivors'])}")
            self.say(f"stopped {name}", "ERROR", f"{name}: could not stop {', '.join(found['survivors'])}")
        elif found["stopped"]:
            self.say(f"stopped {name}", "INFO", f"stopped {name}: {', '.join(found['stopped'])} ({found['request']})")
        else:
            self.say(f"stopped {name}", "INFO", f"{name} had ended by itself")

    def _make_safe(self) -> None:
        """Run the safe-state commands of devices that nobody made safe, the last one opened first."""
        for number, event in reversed(list(enumerate(self.view.safe_states))):
            device = str(event.get("device"))
            if not self._guard(f"making {device} safe", partial(self._run_safe_state, event)):
                self.unsafe.append(device)
            if device in self.unsafe:
                # At once: killed before the end, the next one to finish the session does not learn of it.
                self._guard("noting a device that may not be safe", partial(self._leave_note, Outcome.CRASHED))
            self.journal.write("safe_state_done", device=device, order=number)
        self.view.read()

    def _run_safe_state(self, event: dict[str, Any]) -> None:
        device, timeout_s = str(event["device"]), float(event.get("timeout_s") or _DEFAULT_SAFE_STATE_S)
        command = [str(part) for part in event["command"]]
        cwd = event.get("cwd") or str(self.view.folder)
        problem = ""
        with open(self.view.folder / METADATA / SAFE_STATE_LOG, "ab") as output:
            try:
                process = spawn_detached(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
                code = process.wait(timeout_s)
                problem = f"its command ended with {code}" if code else ""
            except subprocess.TimeoutExpired:
                process.kill()
                problem = f"its command did not end within {timeout_s:g} s"
            except OSError as error:
                problem = f"its command cannot be run: {error}"
        if problem:
            self.unsafe.append(device)
            self.helper_failures.append(f"{device} may not be safe: {problem}")
            self.say(f"safe {device}", "ERROR", f"{device} may not be safe: {problem}; see {METADATA}/{SAFE_STATE_LOG}")
        else:
            self.say(f"safe {device}", "INFO", f"{device} was made safe by its command")

    # -- what the acquisition still wrote ----------------------------------------------------------------------------

    def _take_output(self, acquisition: AcquisitionView) -> None:
        """Append the lines of the raw files that are not in the log: none doubled, none left out."""
        from ..acquisition import replay

        log = self.log
        if log is None:
            return
        for stream in ("stdout", "stderr"):
            relative = acquisition.started.get(stream)
            if not relative:
                continue
            loggers = {f"acquisition.{stream}", f"acquisition.{acquisition.name}.{stream}"}
            mark = acquisition.marks.get(stream) or {}
            start = int(mark.get("log_size") or 0)
            logger, count = f"acquisition.{acquisition.name}.{stream}", 0
            for entry in read_log(log.path, start=start):
                if entry.logger in loggers:
                    logger, count = entry.logger, count + 1
            text = head("INFO", *self._place, logger)
            for lines in replay(self.view.folder / str(relative), int(mark.get("raw_from") or 0), count):
                log.write(encode_batch(time_field(time.time()), text, lines, self.mask if self.mask else None), len(lines))

    # -- the states --------------------------------------------------------------------------------------------------

    def _write_end(self, failure: Failure, exit_code: int | None) -> None:
        view = self.view
        record = view.new_record()
        try:
            record = record_of(view, failure, exit_code, self.stops, self.helper_failures)
        except Exception:
            # A state that says little is better than none.
            print(traceback.format_exc(), file=sys.stderr, flush=True)
            record.failures = [failure]
            record.helper_failures = [*self.helper_failures, "witness: the journal could not be understood"]
        seconds = "" if record.duration_s is None else f" after {record.duration_s:.1f} s"
        view.running = None
        self.say("stopped", "INFO", f"session {record.session_uuid} stopped {record.stopped}{seconds}", FOOTER_LOGGER)
        lost = record.lost_records + (self.log.lost_records if self.log is not None else 0)
        self.say("footer", "INFO", f"outcome: {record.outcome}, exit code {exit_code}, lost log records {lost}", FOOTER_LOGGER)
        if self.log is not None:
            self._guard("closing the session log", self.log.close)
        self._guard("writing debug_state.json", lambda: self._write_debug_state(record, failure))
        self._guard("writing end_state.json", lambda: self._write_end_state(record))
        if self.unsafe or not self.recovered:
            self._guard("leaving a note for the next session", partial(self._leave_note, record.outcome))
        self.journal.write(
            "ended", outcome=str(record.outcome), exit_code=exit_code, by="recovery" if self.recovered else "sidecar"
        )
        view.read()
        drop_empty_spare(view.path)

    def _leave_note(self, outcome: Outcome) -> None:
        """Let the next session on this rig tell its people of this one, and of what may still be on."""
        if self.view.value("dry_run"):
            return
        see = self.view.folder / METADATA / SAFE_STATE_LOG if self.unsafe else self.view.folder
        mark_crashed(self.view.state_directory, self.view.uuid, str(outcome), self.unsafe, see)

    def _write_debug_state(self, record: SessionRecord, death: Failure) -> None:
        view, path = self.view, self.view.folder / METADATA / DEBUG_STATE
        samples: list[Any] = []
        with contextlib.suppress(OSError):
            samples = [sample for sample, _ in read_samples(view.folder / METADATA / RESOURCE_USAGE)][-_LAST_SAMPLES:]
        state = debug_state(
            record,
            launcher_state={"session_folder": str(view.folder), "pid": view.value("pid"), "last_step": view.last_step},
            log=view.log_path,
            parameters=read_json(view.folder / METADATA / "processed_parameters.json"),
            resource_samples=samples,
            secrets=self.secrets,
            exit_code=record.exit_code,
            signal=death.signal,
            faulthandler=death.faulthandler,
        )
        # What is known of the reports stays when the ending is repeated.
        state["github"] = (read_json(path) or {}).get("github") or state["github"]
        write_json(path, state)

    def _write_end_state(self, record: SessionRecord) -> None:
        path = self.view.folder / METADATA / END_STATE
        before = read_json(path) or {}
        mirror = {"status": "off", "bytes_behind": 0, "reason": ""}
        if self.view.value("mirror_directory"):
            mirror = {"status": "pending", "bytes_behind": None, "reason": "not confirmed yet"}
        rig = before.get("rig_config") or self.view.value("rig_config", {})
        by = "recovery" if self.recovered else "sidecar"
        write_json(path, end_state(record, rig_config=rig, mirror=mirror, secrets=self.secrets, written_by=by))

    def _tell_operator(self, terminal: str, failure: Failure) -> None:
        # A terminal whose foot the dead process kept still gets its whole height back; elsewhere this changes nothing.
        release = "" if os.environ.get("TERM") in (None, "dumb", "unknown") else RELEASE_TERMINAL
        text = (
            f"{release}\npytest-openscope: {failure.message}\noutcome: {failure.outcome}\nsession folder: {self.view.folder}\n"
        )
        fd = os.open(terminal, os.O_WRONLY | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            os.write(fd, self.mask(text).replace("\n", "\r\n").encode("utf-8", "replace"))
        finally:
            os.close(fd)


def _newest_time(log: Path) -> float:
    """Return the time of a log's last line that has one; 0 without."""
    for line in reversed(last_lines(log, _TAIL_LINES)):
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(line.partition(" ")[0]).timestamp()
    return 0.0
