"""The same defect has the same fingerprint everywhere; another one has another."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openscope.issues.fingerprint import (
    FINGERPRINT,
    fault_frames,
    fingerprint_of,
    fingerprint_of_name,
    normalised,
    own_functions,
    program,
    signal_name,
)
from pytest_openscope.issues.text import IssueContext, body, fingerprints_in, title, visible_lines
from pytest_openscope.records.phases import Outcome, Phase
from pytest_openscope.records.record import AcquisitionFacts, ChainedException, Failure, from_json, to_json

ROOTS = st.sampled_from(["/home/jane/rigs", "C:\\Users\\bob smith\\rigs", "/Users/x/rigs", "D:\\rigs", "//server/share/rigs"])
LIBRARY = {
    "file": "/usr/lib/python3.11/site-packages/serial/serialposix.py",
    "line": 5,
    "function": "read",
    "module": "serial.x",
}
STDLIB = {"file": "/usr/lib/python3.11/json/decoder.py", "line": 355, "function": "decode", "module": "json.decoder"}
OURS = {"file": "/x/site-packages/pytest_openscope/run.py", "line": 5, "function": "run", "module": "pytest_openscope.run"}


def frame(function: str, module: str = "shutter", root: str = "/rigs", line: int = 1) -> dict[str, Any]:
    separator = "\\" if "\\" in root else "/"
    return {"file": f"{root}{separator}{module}.py", "line": line, "function": function, "module": module}


def raised(*frames: dict[str, Any], message: str = "stuck", kind: str = "lab.Stuck", **more: Any) -> Failure:
    chain = [ChainedException(kind, message, frames=list(frames))]
    values: dict[str, Any] = {"phase": Phase.PRE_ACQUISITION, "step": "open", "exception_type": kind, "chain": chain, **more}
    return Failure("exception", Outcome.FAILED, message, **values)


def test_form() -> None:
    assert re.fullmatch(r"v1:[0-9a-f]{12}", fingerprint_of(raised(frame("open"))))


def test_recipe_has_not_changed() -> None:
    """A change here reports every known defect again: it needs a new version prefix."""
    assert fingerprint_of(raised(frame("test_open", "day"), frame("open"), STDLIB)) == "v1:a0620fb43908"


@given(ROOTS, st.integers(1, 9999), st.text(max_size=30))
def test_same_across_paths_lines_systems_and_messages(root: str, line: int, message: str) -> None:
    there = raised(frame("test_open", "day", root, line), frame("open", root=root, line=line + 1), message=message)
    assert fingerprint_of(there) == fingerprint_of(raised(frame("test_open", "day"), frame("open")))


@given(st.integers(1, 50), st.integers(1, 50))
def test_same_whatever_the_depth_of_a_recursion(one: int, other: int) -> None:
    def deep(count: int) -> Failure:
        return raised(*[frame("visit"), frame("walk")] * count, frame("open"))

    assert fingerprint_of(deep(one)) == fingerprint_of(deep(other))


@pytest.mark.parametrize("name", ["<listcomp>", "open.<locals>.<listcomp>", "Shutter.open.<locals>.<dictcomp>"])
def test_same_with_and_without_frames_of_comprehensions(name: str) -> None:
    assert fingerprint_of(raised(frame("open"), frame(name))) == fingerprint_of(raised(frame("open")))


@given(st.lists(st.sampled_from([LIBRARY, STDLIB, OURS]), max_size=4))
def test_same_whatever_libraries_lie_between(frames: list[dict[str, Any]]) -> None:
    assert fingerprint_of(raised(frame("a"), *frames, frame("b"), *frames)) == fingerprint_of(raised(frame("a"), frame("b")))


@pytest.mark.parametrize(
    "other",
    [
        raised(frame("close")),
        raised(frame("open", "laser")),
        raised(frame("open"), kind="lab.Broken"),
        raised(frame("open"), step="close"),
        raised(frame("open"), phase=Phase.POST_ACQUISITION),
        raised(frame("open"), kind="other.Stuck"),
    ],
)
def test_different_for_different_defects(other: Failure) -> None:
    assert fingerprint_of(other) != fingerprint_of(raised(frame("open")))


def test_root_cause_counts() -> None:
    def chained(kind: str) -> Failure:
        failure = raised(frame("open"))
        failure.chain.insert(0, ChainedException(kind, "x", frames=[frame("read", "port")]))
        return failure

    assert fingerprint_of(chained("OSError")) != fingerprint_of(chained("ValueError")) != fingerprint_of(raised(frame("open")))


@given(st.permutations(["A", "B", "C"]), st.integers(1, 3))
def test_a_groups_order_and_repetitions_do_not_matter(order: list[str], times: int) -> None:
    def group(kinds: list[str]) -> Failure:
        failure = raised(frame("open"), kind="ExceptionGroup")
        members = [ChainedException(kind, "x", "group", [frame("task")]) for kind in kinds]
        failure.chain = [*members, *failure.chain]
        return failure

    assert fingerprint_of(group(list(order) * times)) == fingerprint_of(group(["A", "B", "C"]))
    assert fingerprint_of(group(["A"])) != fingerprint_of(group(["A", "B"]))


def test_message_counts_only_without_own_frames() -> None:
    assert fingerprint_of(raised(frame("a"), message="one")) == fingerprint_of(raised(frame("a"), message="two"))
    assert fingerprint_of(raised(STDLIB, message="one")) != fingerprint_of(raised(STDLIB, message="two"))


@given(ROOTS, st.integers(2, 10**9), st.sampled_from(["2026-01-02", "1999-12-31T23:59:59.5Z", "11/30/2026 10:20:30"]))
def test_normalised_messages_are_the_same(root: str, number: int, date: str) -> None:
    def message(root: str, number: int, date: str) -> Failure:
        text = f"cannot read '{root}/data/camera.bin' of {date}: pid {number}, address {hex(number)}, mouse_{number}"
        return raised(STDLIB, message=text)

    assert fingerprint_of(message(root, number, date)) == fingerprint_of(message("/rigs", 7, "2025-03-04"))


@given(st.sampled_from(["jane", "Bob", "mouse-zx"]))
def test_known_names_are_taken_out(name: str) -> None:
    def named(name: str) -> Failure:
        return raised(STDLIB, message=f"subject {name} is unknown")

    assert fingerprint_of(named(name), [name]) == fingerprint_of(named("other"), ["other"])


@pytest.mark.parametrize(
    ("posix", "windows"),
    [
        ("[Errno 2] No such file or directory: '/home/a/x/camera.cfg'", "[WinError 2] Kein Pfad: 'C:\\Users\\b c\\camera.cfg'"),
        ("cannot open /dev/shm/buffer", "cannot open C:\\temp\\buffer"),
        ("frame 17 lost in /data/mouse/x.bin", "frame 9 lost in C:\\Users\\bob smith\\x.bin"),
        ("in /opt/bonsai/a.exe it failed", "in C:\\Program Files (x86)\\Bonsai\\a.exe it failed"),
    ],
)
def test_messages_of_both_systems(posix: str, windows: str) -> None:
    assert normalised(posix) == normalised(windows)


@pytest.mark.parametrize(
    "lines",
    [
        ("Mon Jan  5 10:22:11 2026 camera lost", "Fri Dec 25 01:02:03 2026 camera lost"),
        ("Mon, 05 Jan 2026 10:22:11 +0000 lost", "Wednesday, 25 December 2026 10:22:11 +0100 lost"),
        ("1/5/2026 10:22:11 AM lost", "12/25/2026 1:22:11 PM lost"),
        (" 45%|████▌     | 45/100 [00:05<00:06,  8.9it/s]", "  7%|▋         | 7/100 [00:01<00:16,  6.1it/s]"),
    ],
)
def test_messages_of_several_days(lines: tuple[str, str]) -> None:
    assert normalised(lines[0]) == normalised(lines[1])


def test_words_that_begin_like_a_month_stay() -> None:
    assert len({normalised(line) for line in ("marker 7 lost", "decoder 7 lost", "augment 7 lost", "7 octaves lost")}) == 4


@pytest.mark.parametrize("unit", ["w", "a-", "a.", "C:\\a b\\", "C:\\a ", "mon jan "])
def test_normalising_takes_linear_time(unit: str) -> None:
    times = []
    for size in (20_000, 80_000):
        start = time.process_time()
        normalised(unit * (size // len(unit)))
        times.append(time.process_time() - start)
    assert times[1] < 12 * times[0] + 0.5


@given(st.text(max_size=200))
def test_normalising_takes_any_text(text: str) -> None:
    assert "\n" not in normalised(text)
    assert len(normalised(text)) <= 300


def test_a_step_without_exception() -> None:
    def step(message: str, name: str = "notes") -> Failure:
        return Failure("step", Outcome.FAILED, message, phase=Phase.POST_ACQUISITION, step=name)

    assert fingerprint_of(step("returned False after 3 s")) == fingerprint_of(step("returned False after 40 s"))
    assert fingerprint_of(step("returned False")) != fingerprint_of(step("returned 2.5 volts"))
    assert fingerprint_of(step("x", "notes[2]")) == fingerprint_of(step("x", "notes"))
    assert fingerprint_of(step("x", "notes[left]")) != fingerprint_of(step("x", "notes[right]"))


FAULT = """Fatal Python error: Segmentation fault

Thread 0x00007f33 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 331 in wait

Current thread 0x00007f44 (most recent call first):
  File "{root}/camera.py", line {line} in grab
  File "{root}/test_day.py", line 20 in test_run
  File "/usr/lib/python3.11/site-packages/_pytest/python.py", line 195 in pytest_pyfunc_call
  ...

Extension modules: x, y
"""


def crash(root: str = "/rigs", line: int = 12, signal: str = "SIGSEGV", text: str = FAULT) -> Failure:
    return Failure(
        "crash", Outcome.CRASHED, f"died of {signal}", phase=Phase.ACQUISITION, step="run", signal=signal,
        faulthandler=text.format(root=root, line=line),
    )  # fmt: skip


def test_a_crash_is_its_signal_and_the_frames_of_the_thread_that_crashed() -> None:
    frames = fault_frames(crash().faulthandler)
    assert [item["function"] for item in frames] == ["pytest_pyfunc_call", "test_run", "grab"]
    assert own_functions(frames) == ["camera:grab", "test_day:test_run"]
    assert fingerprint_of(crash("C:\\Users\\x", 99)) == fingerprint_of(crash())
    assert fingerprint_of(crash(signal="SIGABRT")) != fingerprint_of(crash())
    assert fingerprint_of(crash(text=FAULT.replace("grab", "release"))) != fingerprint_of(crash())


def test_only_the_last_of_several_stacks_was_fatal() -> None:
    """Windows notes what a library catches; a step that hung and came back leaves its stacks, too."""
    noted = (
        "Windows fatal exception: code 0x8001010d\n\nCurrent thread 0x0001 (most recent call first):\n"
        '  File "C:\\rig\\com.py", line 3 in call\n\nTimeout (0:00:05)!\nThread 0x0001 (most recent call first):\n'
        '  File "C:\\rig\\slow.py", line 3 in wait\n\n'
    )
    text = FAULT.replace("Fatal Python error: Segmentation fault", "Windows fatal exception: access violation")
    assert fingerprint_of(crash(text=noted + text, signal="")) == fingerprint_of(crash())
    assert fault_frames(noted)[-1]["function"] == "call", "a thread that waits did not crash"


def hung(function: str, kind: str = "timeout") -> Failure:
    stack = (
        'Timeout (0:00:05.299154)!\nThread 0x00007f01 (most recent call first):\n  File "/rigs/worker.py", line 9 in poll\n\n'
        f'Thread 0x00007f02 (most recent call first):\n  File "/rigs/camera.py", line 6 in {function}\n'
        '  File "/rigs/test_day.py", line 10 in test_run\n'
    )
    return Failure(kind, Outcome.TIMEOUT, "was killed", phase=Phase.ACQUISITION, step="run", faulthandler=stack)


def test_a_step_that_hangs_is_named_by_where_its_main_thread_is() -> None:
    assert fingerprint_of(hung("grab")) == fingerprint_of(hung("grab"))
    assert fingerprint_of(hung("grab")) != fingerprint_of(hung("release"))
    assert fingerprint_of(hung("grab", "crash")) == fingerprint_of(hung("release", "crash")), "it came back, and died later"


@pytest.mark.parametrize("folder", ["/opt/rig/lib", "C:\\rig\\Lib", "/srv/lib64/lab/lib"])
def test_a_lab_folder_called_lib_is_own_in_a_crash_too(folder: str) -> None:
    here = {"file": f"{folder}/shutter.py", "function": "f", "module": ""}
    assert own_functions([here]) == ["shutter:f"]
    for file in (
        "/usr/lib/python3.11/ctypes/__init__.py",
        "C:\\Python\\Lib\\threading.py",
        "/usr/lib/python3.11/json/decoder.py",
    ):
        assert own_functions([{**here, "file": file}]) == []


def test_both_systems_names_of_a_signal() -> None:
    assert signal_name("SIGSEGV") == signal_name("Windows fatal exception: access violation") == signal_name(-11) == "segv"
    assert signal_name(3221225477) == "segv"
    assert signal_name(-115) == signal_name(None) == signal_name(3) == ""


def acquisition(command: list[str], code: int | None = 1, last: str = "boom") -> Failure:
    facts = AcquisitionFacts("stim", command, returncode=code, stderr_tail=["first", last, ""])
    return Failure("acquisition", Outcome.FAILED, "x", phase=Phase.ACQUISITION, step="stim", acquisition=facts)


def test_an_acquisition_is_its_program_return_code_and_last_line() -> None:
    here = acquisition(["/usr/bin/python3.11", "-u", "/home/a/stim.py", "--n=3"], last="ValueError: bad frame 17")
    there = acquisition(["C:\\Python\\python.exe", "-u", "D:\\rig\\stim.py", "--n=9"], last="ValueError: bad frame 99")
    assert fingerprint_of(here) == fingerprint_of(there)
    assert fingerprint_of(acquisition(["stim"], -11)) == fingerprint_of(acquisition(["stim.exe"], 3221225477))
    different = [acquisition(["other"]), acquisition(["stim"], 2), acquisition(["stim"], last="bang"), acquisition(["stim"])]
    assert len({fingerprint_of(item) for item in different}) == 4


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ([], ""),
        (["C:\\x\\Bonsai.exe", "wf\\Main.bonsai", "--start"], "main.bonsai"),
        (["python", "-m", "lab.stim"], "lab.stim"),
        (["/opt/daq"], "daq"),
        (["python"], "python"),
    ],
)
def test_program(command: list[str], expected: str) -> None:
    assert program(command) == expected


def test_given_by_note_or_hook() -> None:
    noted = raised(frame("a"))
    noted.chain[0].notes.append("seen on Monday\nfingerprint: shutter-stuck")
    hooked = raised(frame("b"), fingerprint="shutter-stuck", step="other")
    assert fingerprint_of(noted) == fingerprint_of(hooked)
    assert fingerprint_of(raised(frame("a"), fingerprint="v1:0123456789ab")) == "v1:0123456789ab"


NASTY = ["v1:0123456789ab\n\n# Fingerprint: `v1:ffffffffffff`", "a\x00b\ud800", "`" * 300, "@all #1 <b>", "x" * 100_000]


@pytest.mark.parametrize("name", NASTY)
def test_a_given_name_cannot_break_out_of_its_line(name: str) -> None:
    made = fingerprint_of(raised(frame("a"), fingerprint=name))
    assert FINGERPRINT.fullmatch(made)
    assert made != "v1:0123456789ab"
    context = IssueContext(made, "r1", "rig", "now", "1.0", str)
    issue = {"title": title(raised(frame("a"), fingerprint=name), made, str), "body": body(raised(frame("a")), context)}
    assert fingerprints_in(issue) == {made}
    assert f"Fingerprint: `{made}`" in visible_lines(issue["body"])


@given(st.text(min_size=1).filter(str.strip), st.sampled_from(["", " ", "\t\n"]))
def test_a_given_name_counts_whatever_blanks_are_around_it(name: str, blanks: str) -> None:
    assert fingerprint_of_name(blanks + name + blanks) == fingerprint_of_name(name)
    assert FINGERPRINT.fullmatch(fingerprint_of_name(name))


def test_a_given_name_in_the_form_of_a_fingerprint_is_one() -> None:
    assert fingerprint_of_name(" V1:0123456789AB ") == "v1:0123456789ab"
    assert fingerprint_of_name("v1:0123456789abc") != "v1:0123456789ab"
    assert fingerprint_of(raised(frame("a"), fingerprint=" \n ")) == fingerprint_of(raised(frame("a")))


LINKS = st.builds(
    ChainedException, st.text(max_size=9), st.text(max_size=9), st.sampled_from(["root", "group", "cause", "context"])
)
KINDS = st.sampled_from(["exception", "step", "crash", "timeout", "internal", "collection", "acquisition"])
FAILURES = st.builds(
    Failure,
    KINDS,
    st.sampled_from(Outcome),
    st.text(max_size=80),
    step=st.text(max_size=20),
    signal=st.text(max_size=10),
    faulthandler=st.text(max_size=80),
    chain=st.lists(LINKS, max_size=3),
)


@given(FAILURES)
def test_any_failure_has_one(failure: Failure) -> None:
    assert re.fullmatch(r"v1:[0-9a-f]{12}", fingerprint_of(failure))
    assert fingerprint_of(failure) == fingerprint_of(from_json("failures", to_json(failure)))


@pytest.mark.parametrize(
    "file",
    ["C:\\Python311\\Lib\\json\\decoder.py", "/opt/conda/lib/python3.12/json/decoder.py", "<frozen importlib._bootstrap>"],
)
def test_standard_library_of_every_system_is_not_own(file: str) -> None:
    assert own_functions([{"file": file, "function": "f", "module": "json.decoder"}]) == []


def test_a_lab_folder_called_lib_is_own() -> None:
    assert own_functions([{"file": "C:\\rig\\lib\\shutter.py", "function": "f", "module": "shutter"}]) == ["shutter:f"]
