"""One short name per defect, the same on every rig: ``v1:`` and 12 hexadecimal digits.

The recipe is part of the interface: change it only with a new version prefix, or every open defect is reported again.
docs/explanation/fingerprints.md explains it with examples.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

from ..records import AcquisitionFacts, ChainedException, Failure
from .markdown import clean
from .normalise import basename, normalised
from .sources import Sources

VERSION = "v1"
FINGERPRINT = re.compile(r"v1:[0-9a-f]{12}")
#: Innermost distinct own functions per exception; deeper callers say who asked, not what broke.
OWN_FRAMES = 5
CHAIN_LINKS = 10

_LIBRARY = re.compile(r"(?i)[\\/](?:site-packages|dist-packages)[\\/]")
_STDLIB = re.compile(r"(?i)[\\/](?:lib(?:64)?[\\/]python\d[\d.]*t?|lib|python\d+\.zip|pypy\d?[\d.]*)[\\/](?P<top>[^\\/.]+)")
#: Python 3.12 no longer makes frames of comprehensions.
_INLINED = {"<listcomp>", "<dictcomp>", "<setcomp>"}
_IN_INLINED = re.compile(r"<(?:list|dict|set)comp>\.")
_FAULT_FRAME = re.compile(r'^\s+File "(?P<file>.+?)", line (?P<line>\d+) in (?P<function>.+?)\s*$')
_FATAL = re.compile(r"^(?:Fatal Python error|Windows fatal exception): .*$", re.MULTILINE)
_NOTE = re.compile(r"(?i)^\s*fingerprint\s*[:=]\s*(?P<text>\S.*?)\s*$")
_PYTHON = re.compile(r"(?i)^(?:python|pythonw|py|pypy)[\d.]*$")
_SCRIPT = re.compile(r"(?i)\.(?:py|pyw|bonsai|m|bat|cmd|ps1|sh|exe|jar)$")
_SIGNALS = {
    "segv": (
        "sigsegv",
        "segmentation fault",
        "access violation",
        "3221225477",
        "-1073741819",
        "0xc0000005",
        "signal 11",
        "-11",
    ),
    "abrt": ("sigabrt", "aborted", "signal 6", "-6", "3221226505", "0xc0000409"),
    "kill": ("sigkill", "signal 9", "-9"),
    "fpe": ("sigfpe", "floating point", "divide by zero", "signal 8", "-8", "3221225620", "0xc0000094"),
    "ill": ("sigill", "illegal instruction", "signal 4", "-4", "3221225501", "0xc000001d"),
    "stack": ("stack overflow", "3221225725", "0xc00000fd"),
    "bus": ("sigbus", "bus error", "signal 7", "-7"),
}
#: From the message of a process that vanished without a sign.
_UNKNOWN_DEATH = "how is not known"


def fingerprint_of(failure: Failure, private: Iterable[str] = (), sources: Sources | None = None) -> str:
    """Return the defect's name.

    ``private`` are this session's own names (subject, user, rig, host); messages are compared without them. ``sources`` know
    what the frames do not tell.
    """
    given = given_fingerprint(failure)
    if given:
        return fingerprint_of_name(given)
    names, sources = tuple(private), sources or Sources()
    parts = [failure.kind if failure.kind in ("acquisition", "timeout", "crash") else "failure"]
    parts += [str(failure.phase or ""), step_name(failure.step, names)]
    if failure.kind == "acquisition" and failure.acquisition is not None:
        parts += _acquisition(failure.acquisition, names)
    elif failure.kind == "crash":
        parts += _crash(failure, names, sources)
    elif failure.chain:
        parts += _chain(failure.chain, failure.kind == "internal", names, sources)
    elif failure.faulthandler:
        parts += _crash(failure, names, sources)
    else:
        parts += [failure.exception_type, normalised(failure.message, names)]
    return _hash(parts)


def fingerprint_of_name(text: str) -> str:
    """Return the fingerprint of a name that the user gave; what has the form of a fingerprint is taken as one.

    Whatever the text holds, the result fits into a title and stands as a line of its own in a body.
    """
    name = " ".join(clean(text).split())
    return name.lower() if FINGERPRINT.fullmatch(name.lower()) else _hash(["given", name])


def given_fingerprint(failure: Failure) -> str:
    """Return the name that the user gave, by hook or by a note ``fingerprint: …`` of an exception; else ""."""
    if failure.fingerprint.strip():
        return failure.fingerprint.strip()
    for link in reversed(failure.chain):
        for note in link.notes:
            for line in str(note).splitlines():
                match = _NOTE.match(line)
                if match:
                    return match["text"]
    return ""


def _hash(parts: Iterable[str]) -> str:
    data = "\x1f".join(parts).encode("utf-8", "backslashreplace")
    return f"{VERSION}:{hashlib.sha256(data).hexdigest()[:12]}"


def step_name(step: str, private: Iterable[str] = ()) -> str:
    """Return a step's name without the number of a repetition (``fire[2]``) and without ids in its parameters."""
    name, bracket, rest = step.partition("[")
    if not bracket:
        return name
    inside = normalised(rest.rstrip("]"), private)
    return name if inside in ("", "#") else f"{name}[{inside}]"


def _chain(chain: list[ChainedException], internal: bool, private: tuple[str, ...], sources: Sources) -> list[str]:
    """Return one signature per exception from the root cause; members of a group in an order of their own, each once."""
    whole = [(link.type, own_functions(link.frames, internal, sources.traced)) for link in chain]
    own = any(frames for _, frames in whole)
    signatures: list[str] = []
    members: set[str] = set()
    for link, (kind, frames) in zip(chain, whole, strict=True):
        text = kind + "|" + ">".join(frames)
        if not own:
            text += "|" + normalised(link.message, private)
        if link.relation == "group":
            members.add(text)
        elif not signatures or signatures[-1] != text:
            signatures.append(text)
    if len(signatures) > CHAIN_LINKS:
        signatures = signatures[: CHAIN_LINKS // 2] + signatures[-CHAIN_LINKS // 2 :]
    return signatures + ["group"] * bool(members) + sorted(members)[:CHAIN_LINKS]


def own_functions(
    frames: list[dict[str, Any]],
    internal: bool = False,
    complete: Callable[[dict[str, Any]], dict[str, Any]] = lambda frame: frame,
) -> list[str]:
    """Return the innermost distinct own functions as ``module:function``, innermost first.

    Distinct, because the depth of a recursion is chance. ``internal`` counts this package's own code as own; ``complete`` adds
    to an own frame what it does not tell itself.
    """
    found: list[str] = []
    for frame in reversed(frames):
        if str(frame.get("function") or "").rpartition(".")[2] in _INLINED or not is_own(frame, internal):
            continue
        known = complete(frame)
        name = f"{module_of(known)}:{_IN_INLINED.sub('', str(known.get('function') or ''))}"
        if name not in found:
            found.append(name)
        if len(found) == OWN_FRAMES:
            break
    return found


def module_of(frame: dict[str, Any]) -> str:
    """Return the frame's module; the file's stem where there is none or it was run as a script."""
    module = str(frame.get("module") or "")
    if module and module not in ("__main__", "__mp_main__"):
        return module
    return re.sub(r"(?i)\.pyw?$", "", basename(str(frame.get("file") or "")))


def is_own(frame: dict[str, Any], internal: bool = False) -> bool:
    """Tell whether a frame is the lab's code: neither the standard library's, an installed package's nor this package's."""
    file = str(frame.get("file") or "")
    module = str(frame.get("module") or "")
    top = module.partition(".")[0]
    if top == "pytest_openscope" or (not module and re.search(r"[\\/]pytest_openscope[\\/]", file)):
        return internal
    if file.startswith("<") or _LIBRARY.search(file):
        return False
    if top in ("_pytest", "pytest", "pluggy", "importlib", "runpy"):
        return False
    *_, inside = (None, *_STDLIB.finditer(file))
    # Stacks of faulthandler have no module; then the file's place below the library tells it.
    return inside is None or not {top or inside["top"], module_of(frame)} & sys.stdlib_module_names


def _crash(failure: Failure, private: tuple[str, ...], sources: Sources) -> list[str]:
    frames = fault_frames(failure.faulthandler, failure.kind == "timeout")
    functions = own_functions(frames, False, sources.dumped) or own_functions(frames, True, sources.dumped)
    if not functions:
        functions = [f"{module_of(frame)}:{frame['function']}" for frame in reversed(frames)][:3]
    # What stands before the last one was survived: a timeout, or what a library of Windows caught.
    *_, head = ("", *_FATAL.findall(failure.faulthandler))
    name = signal_name(failure.signal or head or failure.message)
    if not functions and (name == "kill" or _UNKNOWN_DEATH in failure.message):
        # Whether anybody learns of a SIGKILL depends on who reaps the process first.
        name = "kill"
    elif name == "" and not functions:
        name = normalised(failure.signal or failure.message, private)
    return [name, *functions]


def fault_frames(text: str, hung: bool = False) -> list[dict[str, Any]]:
    """Return the frames of the thread that crashed from a faulthandler text, outermost first; [] when there are none.

    Of a process that ``hung``, those of the main thread, which is the last one: no thread is called the current one then.
    """
    starts = ("Current thread", "Stack (most recent", *(("Thread",) if hung else ()))
    frames: list[dict[str, Any]] = []
    inside = False
    for line in text.splitlines():
        if line.startswith(starts):
            inside, frames = True, []
        elif inside:
            match = _FAULT_FRAME.match(line)
            if match is None:
                inside = False
                continue
            frames.append({"file": match["file"], "line": int(match["line"]), "function": match["function"], "module": ""})
    frames.reverse()
    return frames


def signal_name(text: str | int | None) -> str:
    """Return one name for what the systems call differently (``SIGSEGV``, ``access violation``, -11); "" for the rest."""
    wanted = str(text if text is not None else "").strip().lower()
    for name, spellings in _SIGNALS.items():
        for spelling in spellings:
            if wanted == spelling or (not spelling.lstrip("-").isdigit() and spelling in wanted):
                return name
    return ""


def _acquisition(facts: AcquisitionFacts, private: tuple[str, ...]) -> list[str]:
    lines = [line for line in facts.stderr_tail if line.strip()]
    code = signal_name(facts.returncode) or ("" if facts.returncode is None else str(facts.returncode))
    return [program(facts.command), code, normalised(lines[-1], private) if lines else ""]


def program(command: list[str]) -> str:
    """Return what a command runs: the script or workflow of an interpreter, else the program, without folder and ``.exe``."""
    if not command:
        return ""
    name = re.sub(r"(?i)\.(?:exe|com)$", "", basename(str(command[0]))).lower()
    for position, argument in enumerate(str(item) for item in command[1:]):
        if _PYTHON.match(name) and argument == "-m" and position + 2 < len(command):
            return str(command[position + 2])
        if not argument.startswith("-") and _SCRIPT.search(argument):
            return basename(argument).lower()
    return name if not _PYTHON.match(name) else "python"
