"""One short name per defect, the same on every rig: ``v1:`` and 12 hexadecimal digits.

The recipe is part of the interface: change it only with a new version prefix (``VERSION`` in text.py), or every open defect is
reported again.
docs/explanation/fingerprints.md explains it with examples.
"""

from __future__ import annotations

import dis
import hashlib
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

from ..records import AcquisitionFacts, ChainedException, Failure, noted_fingerprint
from .text import FINGERPRINT, VERSION, clean

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
_PYTHON = re.compile(r"(?i)^(?:python|pythonw|py|pypy)[\d.]*$")
_SCRIPT = re.compile(r"(?i)\.(?:py|pyw|bonsai|m|bat|cmd|ps1|sh|exe|jar)$")
#: Of Windows, as its programs return it.
_ACCESS_VIOLATION = ("3221225477", "-1073741819", "0xc0000005")
_SIGNALS = {
    "segv": ("sigsegv", "segmentation fault", "access violation", "signal 11", "-11", *_ACCESS_VIOLATION),
    "abrt": ("sigabrt", "aborted", "signal 6", "-6", "3221226505", "0xc0000409"),
    "kill": ("sigkill", "signal 9", "-9"),
    "fpe": ("sigfpe", "floating point", "divide by zero", "signal 8", "-8", "3221225620", "0xc0000094"),
    "ill": ("sigill", "illegal instruction", "signal 4", "-4", "3221225501", "0xc000001d"),
    "stack": ("stack overflow", "3221225725", "0xc00000fd"),
    "bus": ("sigbus", "bus error", "signal 7", "-7"),
}
#: From the message of a process that vanished without a sign.
_UNKNOWN_DEATH = "how is not known"

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_OS_ERROR = re.compile(r"\[(?:Errno|WinError) -?\d+\][^'\"]*")
_URL = re.compile(r"(?i)\b[a-z][a-z0-9+.\-]{1,20}://[^\s'\"<>]+")
#: Blanks within a path are recognised in quotes, and before a further backslash of a Windows path.
_QUOTED_PATH = re.compile(r"""(['"])(?=[^'"\n]*[\\/])[^'"\n]{1,1000}\1""")
_BLANK_IN_PATH = r"\x20(?=(?:[\w.\-]+\x20){0,2}[\w.\-]*(?:\(x86\))?\\)|(?<=\x20)\(x86\)(?=\\)"
_PATH = re.compile(
    rf"""(?<![\w])[A-Za-z]:\\(?:[^\s'"<>|:*?,;()\[\]{{}}]|{_BLANK_IN_PATH})+"""
    r"""|(?:\\\\|(?<![\w])[A-Za-z]:[\\/]|~?/|\.{1,2}[\\/])[^\s'"<>|:*?,;()\[\]{}]+|(?<![\w.\-\\/])[\w.\-]+(?:[\\/][\w.\-]+)+"""
)
_STAMP = re.compile(
    r"\b\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[T _]\d{1,2}[-:]\d{2}(?:[-:]\d{2}(?:[.,]\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?"
)
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_WEEKDAY = r"(?:mon|tue(?:s)?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?"
#: ``Mon Jan  5``, ``Mon, 05 Jan 2026``, ``January 5, 2026``.
_DATE_IN_WORDS = re.compile(
    rf"(?i)\b(?:{_WEEKDAY},?\s+)?(?:{_MONTH}\.?\s+\d{{1,2}}|\d{{1,2}}\.?\s+{_MONTH})\b(?:,?\s+\d{{4}}\b)?"
)
_NOON = re.compile(r"(?i)(?<=#)\s?[ap]\.?m\b\.?")
#: Bars of progress.
_BLOCKS = re.compile("[\u2580-\u259f]+")
_WORD_WITH_DIGIT = re.compile(r"(?<![\w.+\-])[\w.+\-]*\d[\w.+\-:]*")
_HEX_WORD = re.compile(r"\b[0-9a-fA-F]{8,}\b")
_SIGNS = re.compile(r"#(?:[\s,:;xX*/|+-]*#)+")


def fingerprint_of(failure: Failure, private: Iterable[str] = (), sources: Sources | None = None) -> str:
    """Return the defect's name.

    ``private`` are this session's own names (subject, user, rig, host); messages are compared without them. ``sources`` know
    what the frames do not tell.
    """
    given = failure.fingerprint.strip() or noted_fingerprint(failure.chain)
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


def basename(path: str) -> str:
    """Return the last part of a path of either system."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def normalised(text: str, private: Iterable[str] = ()) -> str:
    """Return one lower-case line: every word with a digit as ``#``, every path as its normalised last part.

    ``private`` are names to take out besides (subject, user, rig, host), since one without digits cannot be told from a word.
    """
    line = _ANSI.sub("", text)
    for name in sorted({name for name in private if len(name) > 1}, key=len, reverse=True):
        line = re.sub(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", "#", line, flags=re.IGNORECASE)
    line = _OS_ERROR.sub("", line)
    line = _URL.sub("#", line)
    line = _STAMP.sub("#", line)
    line = _DATE_IN_WORDS.sub("#", _BLOCKS.sub(" ", line))
    line = _QUOTED_PATH.sub(lambda match: " " + basename(match[0][1:-1]) + " ", line)
    line = _PATH.sub(lambda match: basename(match[0]), line)
    line = _HEX_WORD.sub("#", line)
    line = _WORD_WITH_DIGIT.sub("#", line)
    line = _SIGNS.sub("#", _NOON.sub("", line))
    return " ".join(line.split()).lower()[:300]


#: Larger files are data.
MAX_SOURCE_BYTES = 4_000_000
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
#: What pytest imports by a name that may hold the way from its root folder.
_COLLECTED = re.compile(r"(?:test_\w*|\w+_test|conftest)")
_COMPREHENSIONS = _INLINED | {"<genexpr>"}


class Sources:
    """Completes frames from the files on this disk: qualified names where Python does not tell them, modules of test files.

    Stacks of faulthandler and tracebacks of Python 3.10 have plain names only, so the line that ran is looked up in the source.
    Where the source is gone, or has changed so that no function of that name is at that line, the plain name stays.

    Args:
        python: version that made the tracebacks; those of 3.11 on have qualified names.
    """

    def __init__(self, python: str = "") -> None:
        numbers = [int(part) for part in re.findall(r"\d+", python)[:2]]
        self.traced_plainly = len(numbers) == 2 and numbers < [3, 11]
        self._codes: dict[str, list[tuple[str, str, range]]] = {}

    def traced(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Return a frame of a traceback with the names that it has on every rig."""
        found = {**frame, "module": _module(frame)}
        return self._qualified(found) if self.traced_plainly else found

    def dumped(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Return a frame of a faulthandler stack with its qualified name."""
        return self._qualified({**frame, "function": _unescaped(str(frame["function"]))})

    def _qualified(self, frame: dict[str, Any]) -> dict[str, Any]:
        name, line, file = str(frame.get("function") or ""), int(frame.get("line") or 0), str(frame.get("file") or "")
        if file not in self._codes:
            self._codes[file] = _codes_in(file)
        found = [qualname for plain, qualname, lines in self._codes[file] if plain == name and line in lines]
        # Inner functions come later, so the last one is the innermost.
        return {**frame, "function": found[-1]} if found else frame


def _codes_in(file: str) -> list[tuple[str, str, range]]:
    """Return name, qualified name and lines of whatever compiles to code of its own, outer ones first; [] without source."""
    for path in map(Path, dict.fromkeys([file, _unescaped(file)])):
        try:
            if path.is_file() and path.stat().st_size <= MAX_SOURCE_BYTES:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    return list(_below(compile(path.read_bytes(), file, "exec", dont_inherit=True), ""))
        except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return []


def _below(code: CodeType, prefix: str) -> Iterator[tuple[str, str, range]]:
    """Name the code objects in one whose own name and a separator are ``prefix``; as Python 3.11 does in ``co_qualname``."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    # What a function or class declares global is the module's.
    globals_ = (
        {item.argval for item in dis.get_instructions(code) if item.opname == "STORE_GLOBAL"} if prefix and inner else set()
    )
    for child in inner:
        name = child.co_name
        if name.startswith("<generic parameters of"):
            yield from _below(child, prefix)
            continue
        qualname = name if name in globals_ else prefix + name
        is_function = child.co_flags & inspect.CO_OPTIMIZED and name not in _COMPREHENSIONS
        below = list(_below(child, qualname + (".<locals>." if is_function else ".")))
        last = max(
            [child.co_firstlineno, *(line for *_, line in child.co_lines() if line), *(lines[-1] for *_, lines in below)]
        )
        yield name, qualname, range(child.co_firstlineno, last + 1)
        yield from below


def _unescaped(text: str) -> str:
    """Undo how faulthandler writes what is not ASCII."""
    return _ESCAPE.sub(lambda match: chr(int(match[1] or match[2] or match[3], 16) % 0x110000), text)


def _module(frame: Mapping[str, Any]) -> str:
    """Return a frame's module; of a test file without the folders that are no packages.

    With ``--import-mode=importlib`` pytest puts the way from its root folder before the name, which differs between checkouts.
    """
    module, file = str(frame.get("module") or ""), str(frame.get("file") or "")
    parts = module.split(".")
    if len(parts) < 2 or not _COLLECTED.fullmatch(parts[-1]) or basename(file) != parts[-1] + ".py":
        return module
    kept, folder = [parts[-1]], Path(file).parent
    try:
        if not Path(file).is_file():
            return module
        for part in reversed(parts[:-1]):
            if folder.name != part or not (folder / "__init__.py").is_file():
                break
            kept.insert(0, part)
            folder = folder.parent
    except (OSError, ValueError):
        return module
    return ".".join(kept)
