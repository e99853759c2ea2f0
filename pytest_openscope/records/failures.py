"""What goes wrong: a user's mistakes before an experiment starts, and a live exception as a :class:`.record.Failure`."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from reprlib import Repr
from types import TracebackType
from typing import Any

from ..log import is_secret_key
from ..system import now_iso
from .phases import Outcome, Phase
from .record import AcquisitionFacts, ChainedException, Failure

MAX_CHAIN = 50
MAX_GROUP_MEMBERS = 20
#: Frames kept at either end of one traceback; a recursion has thousands.
MAX_FRAMES_EACH_END = 50
MAX_MESSAGE_CHARS = 20_000
MAX_TRACEBACK_CHARS = 200_000
MAX_LOCALS_FRAMES = 10
MAX_VALUE_CHARS = 500
_TEST_RUNNER = frozenset({"_pytest", "pluggy", "pytest_openscope"})
_FINGERPRINT_NOTE = re.compile(r"(?i)^\s*fingerprint\s*[:=]\s*(?P<text>\S.*?)\s*$")


@dataclass(frozen=True)
class Mistake:
    """One thing that a user must mend.

    Attributes:
        where: the file, option or environment variable that holds the mistake.
        key: dotted key inside it (``devices.laser.driver``); empty when the whole file is meant.
        problem: what is wrong, with the value received.
        remedy: what to do about it.
    """

    where: str
    problem: str
    remedy: str = ""
    key: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: {self.key}" if self.key else self.where
        return f"{place}: {self.problem}" + (f" -> {self.remedy}" if self.remedy else "")


class ConfigurationError(Exception):
    """Everything that is wrong with what the user gave, all of it at once."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


def failure_from_exception(
    exc: BaseException,
    *,
    kind: str = "exception",
    outcome: Outcome = Outcome.FAILED,
    phase: Phase | None = None,
    step: str = "",
    nodeid: str = "",
    when: str = "",
    show_locals: bool = False,
    acquisition: AcquisitionFacts | None = None,
) -> Failure:
    """Describe an exception without keeping it, its frames or its locals alive; never raises because of what it contains.

    Args:
        show_locals: also keep the local variables of the innermost frames, bounded and masked by name.
    """
    chain = _chain(exc)
    return Failure(
        kind=kind,
        outcome=outcome,
        message=_sentence(exc) or _message(exc),
        exception_type=_type_name(exc),
        traceback=_traceback_text(exc),
        phase=phase,
        step=step,
        nodeid=nodeid,
        when=when,
        at=now_iso(),
        chain=chain,
        locals=_locals(exc) if show_locals else [],
        acquisition=acquisition,
        fingerprint=noted_fingerprint(chain),
    )


def noted_fingerprint(chain: list[ChainedException]) -> str:
    """Return what a note ``fingerprint: text`` of an exception says, of several the last exception's; else ""."""
    for link in reversed(chain):
        for line in "\n".join(link.notes).splitlines():
            if match := _FINGERPRINT_NOTE.match(line):
                return match["text"]
    return ""


def _chain(exc: BaseException) -> list[ChainedException]:
    """Return the exceptions from the root cause to ``exc``, each once, members of a group before their group."""
    links: list[ChainedException] = []
    seen: set[int] = set()
    _add_to_chain(exc, "root", links, seen)
    return links[:MAX_CHAIN] if len(links) <= MAX_CHAIN else links[: MAX_CHAIN - 1] + links[-1:]


def _add_to_chain(exc: BaseException, first: str, links: list[ChainedException], seen: set[int]) -> None:
    line: list[tuple[BaseException, str]] = []
    current: BaseException | None = exc
    while current is not None and id(current) not in seen and len(line) < MAX_CHAIN:
        seen.add(id(current))
        if current.__cause__ is not None:
            line.append((current, "cause"))
            current = current.__cause__
        elif current.__context__ is not None and not current.__suppress_context__:
            line.append((current, "context"))
            current = current.__context__
        else:
            line.append((current, first))
            current = None
    start = len(links)
    for link, relation in reversed(line):
        before = len(links)
        for member in _members(link)[:MAX_GROUP_MEMBERS]:
            if id(member) not in seen and len(links) < MAX_CHAIN:
                _add_to_chain(member, "group" if len(links) > before else "root", links, seen)
        grouped = len(links) > before
        relation = "group" if grouped else (first if len(links) == start else relation)
        links.append(_link(link, relation))


def _members(exc: BaseException) -> list[BaseException]:
    """Return what an exception group holds; by shape, since Python 3.10 has its groups from a backport."""
    members = getattr(exc, "exceptions", None)
    if not isinstance(members, (list, tuple)):
        return []
    return [member for member in members if isinstance(member, BaseException)]


def _link(exc: BaseException, relation: str) -> ChainedException:
    notes = getattr(exc, "__notes__", None)
    texts = [clip(as_text(str, note), MAX_MESSAGE_CHARS) for note in notes] if isinstance(notes, (list, tuple)) else []
    return ChainedException(_type_name(exc), _message(exc), relation, _frames(exc.__traceback__), texts)


def _type_name(exc: BaseException) -> str:
    cls = type(exc)
    module = str(getattr(cls, "__module__", ""))
    return cls.__qualname__ if module in {"builtins", "", "None"} else f"{module}.{cls.__qualname__}"


def _message(exc: BaseException) -> str:
    return clip(as_text(str, exc), MAX_MESSAGE_CHARS)


def _sentence(exc: BaseException) -> str:
    """Return what a KeyError says where that is a sentence: its own text puts it in quotes, as if it were a key."""
    said = exc.args[0] if isinstance(exc, KeyError) and len(exc.args) == 1 else None
    return clip(said, MAX_MESSAGE_CHARS) if type(said) is str and " " in said.strip() else ""


def as_text(convert: Callable[[Any], str], value: Any) -> str:
    """Convert a foreign object to text; its own ``__str__``/``__repr__`` may be what is broken."""
    try:
        return str(convert(value))
    except Exception as error:
        return f"<{type(value).__name__}: {convert.__name__}() raised {type(error).__name__}>"


def clip(text: str, limit: int) -> str:
    """Cut a long text in its middle, saying how much is missing."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def _own_part(start: TracebackType | None) -> TracebackType | None:
    """Skip the leading frames of the test runner; all of them stay when nothing else is there."""
    current = start
    while current is not None:
        module = str(current.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _TEST_RUNNER:
            return current
        current = current.tb_next
    return start


def _walk(current: TracebackType | None) -> Iterable[TracebackType]:
    while current is not None:
        yield current
        current = current.tb_next


def _frames(start: TracebackType | None) -> list[dict[str, Any]]:
    steps = list(_walk(_own_part(start)))
    omitted = len(steps) - 2 * MAX_FRAMES_EACH_END
    if omitted > 0:
        steps = steps[:MAX_FRAMES_EACH_END] + steps[-MAX_FRAMES_EACH_END:]
    frames = []
    for position, step in enumerate(steps):
        code = step.tb_frame.f_code
        frame: dict[str, Any] = {
            "file": code.co_filename,
            "line": step.tb_lineno,
            "function": getattr(code, "co_qualname", code.co_name),
            "module": str(step.tb_frame.f_globals.get("__name__", "")),
        }
        if omitted > 0 and position == MAX_FRAMES_EACH_END:
            frame["omitted_before"] = omitted
        frames.append(frame)
    return frames


def _traceback_text(exc: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(type(exc), exc, _own_part(exc.__traceback__)))
    except Exception as error:
        text = f"{_type_name(exc)}: {_message(exc)}\n(the traceback could not be formatted: {type(error).__name__})\n"
    return clip(text, MAX_TRACEBACK_CHARS)


def _locals(exc: BaseException) -> list[dict[str, Any]]:
    """Return the variables of the innermost frames, outermost first, values as bounded text."""
    found = []
    for step in list(_walk(_own_part(exc.__traceback__)))[-MAX_LOCALS_FRAMES:]:
        code = step.tb_frame.f_code
        names = [name for name in step.tb_frame.f_locals if not name.startswith("@")]
        values = {name: _value(name, step.tb_frame.f_locals[name]) for name in names}
        found.append({"file": code.co_filename, "line": step.tb_lineno, "function": code.co_name, "variables": values})
    return found


def _value(name: str, value: Any) -> str:
    if is_secret_key(name):
        return "***"
    if isinstance(value, (str, bytes)) and len(value) > 4 * MAX_VALUE_CHARS:
        value = value[: 4 * MAX_VALUE_CHARS]
    if isinstance(value, dict):
        value = {key: "***" if isinstance(key, str) and is_secret_key(key) else item for key, item in value.items()}
    return clip(as_text(_bounded_repr, value), MAX_VALUE_CHARS)


def _bounded_repr(value: Any) -> str:
    short = Repr()
    short.maxdict = short.maxlist = short.maxtuple = short.maxset = short.maxfrozenset = short.maxdeque = 20
    short.maxstring = short.maxother = short.maxlong = MAX_VALUE_CHARS
    return short.repr(value)
