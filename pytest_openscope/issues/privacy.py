"""What may leave the rig: masks for secrets, for the machine's names, and for the people and animals of a session."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..log import MASK, ExactMasker, mask_text

HOME = "~"
HOST = "<host>"
USER_NAME = "<name>"
#: Folder names that are no user's name although they stand where one would.
_SHARED = {"public", "shared", "default", "all users"}
_SEPARATOR = r"(?:\\{1,4}|/|%5[cC]|%2[fF])"
#: ``C:\\Users\\jane``, ``C:/Users/jane``, ``/home/jane``, ``/Users/jane``, escaped or percent-encoded.
_HOMES = re.compile(
    rf"(?i)(?:(?<![\w])[a-z](?::|%3a|\$){_SEPARATOR}(?:users|documents and settings)"
    rf"|(?<![\w.~]){_SEPARATOR}(?:home|users|usr{_SEPARATOR}home))"
    rf"{_SEPARATOR}(?P<name>[^\\/\s:*?\"'<>|,;()\[\]%]+(?: [^\\/\s:*?\"'<>|,;()\[\]%]+(?=[\\/]))?)"
)

_NOTHING = re.compile(r"(?!)")
_OUTSIDE_PATHS = re.compile(r"[\s\"'<>|]")
#: How far around a name a separator is looked for.
_PATH_CHARS = 300


@dataclass(frozen=True)
class Machine:
    """The machine's own names, all of which are private."""

    homes: tuple[str, ...] = ()
    user_names: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()

    @classmethod
    def here(cls) -> Machine:
        """Ask the system; what it does not tell is left out."""
        homes: list[str] = []
        names: list[str] = []
        hosts: list[str] = []
        with suppress(RuntimeError, OSError):
            home = Path.home()
            homes, names = [str(home)], [home.name]
        if sys.platform != "win32":
            # HOME may name another folder (a service, sudo); tracebacks show where Python is installed all the same.
            import pwd

            with suppress(KeyError):
                account = pwd.getpwuid(os.getuid())
                homes.append(account.pw_dir)
                names.append(account.pw_name)
        with suppress(OSError, KeyError, ImportError):
            names.append(getpass.getuser())
        with suppress(OSError):
            host = socket.gethostname()
            hosts = [host, host.partition(".")[0]]
        return cls(
            tuple(dict.fromkeys(home for home in homes if len(home) > 3)),
            tuple(sorted({name for name in names if len(name) > 1})),
            tuple(sorted({host for host in hosts if len(host) > 1 and host.lower() != "localhost"})),
        )


class Privacy:
    """Masks text in two strengths: :meth:`always` for all that is sent, :meth:`private` for what must not name anybody."""

    def __init__(
        self,
        *,
        secrets: Iterable[str] = (),
        subject_id: str | None = None,
        user_id: str | None = None,
        session_uuid: str | None = None,
        machine: Machine | None = None,
    ) -> None:
        self.machine = machine or Machine.here()
        self.masker = ExactMasker(secrets)
        self._homes = _alternatives(self.machine.homes)
        self._names = _word(self.machine.user_names)
        self._hosts = _word(self.machine.hosts)
        people = [(session_uuid, "<session>"), (subject_id, "<subject>"), (user_id, "<user>")]
        self._people = [(pattern, mask) for value, mask in people for pattern in [_name_pattern(value)] if pattern]

    def always(self, text: str) -> str:
        """Hide secrets, what is shaped like one, home directories, user names in paths, and the host's name."""
        text = mask_text(text, self.masker)
        text = _HOMES.sub(_home, self._homes.sub(HOME, text))
        return self._hosts.sub(HOST, self._names.sub(_if_in_path, text))

    def private(self, text: str) -> str:
        """Like :meth:`always`, and hide subject, user and session name in every form."""
        for pattern, mask in self._people:
            text = pattern.sub(mask, text)
        return self.always(text)

    def rig_name(self, rig_id: str) -> str:
        """Return the rig's id as it may be shown; a rig named after its host gets a pseudonym that stays the same."""
        if self.always(rig_id) == rig_id:
            return rig_id
        return "rig-" + hashlib.sha256(rig_id.lower().encode("utf-8", "replace")).hexdigest()[:6]


def _home(match: re.Match[str]) -> str:
    return match[0] if match["name"].lower() in _SHARED else HOME


def _spellings(path: str) -> set[str]:
    """A path as it stands in text, in JSON, with the other separator, and percent-encoded."""
    forms = {path, path.replace("\\", "/")}
    return (
        forms
        | {json.dumps(form)[1:-1] for form in forms}
        | {quote(form) for form in forms}
        | {form.replace("/", "\\") for form in forms}
    )


def _alternatives(homes: Iterable[str]) -> re.Pattern[str]:
    forms = sorted({form for home in homes for form in _spellings(home.rstrip("\\/")) if len(form) > 3}, key=len, reverse=True)
    if not forms:
        return _NOTHING
    # A home such as /root may be a part of any other path.
    bounded = [(r"(?<![\w.\-])" if form.count("/") == 1 and form[0] == "/" else "") + re.escape(form) for form in forms]
    return re.compile("(?:" + "|".join(bounded) + r")(?![\w])", re.IGNORECASE)


def _if_in_path(match: re.Match[str]) -> str:
    """Mask a user's name that stands in a path, alone between separators or with other words (``pytest-of-jane``)."""
    text, start, end = match.string, match.start(), match.end()
    before = _OUTSIDE_PATHS.split(text[max(0, start - _PATH_CHARS) : start])[-1]
    around = before + _OUTSIDE_PATHS.split(text[end : end + _PATH_CHARS], maxsplit=1)[0]
    return USER_NAME if "/" in around or "\\" in around else match[0]


def _word(names: Iterable[str]) -> re.Pattern[str]:
    forms = sorted((re.escape(name) for name in names), key=len, reverse=True)
    if not forms:
        return _NOTHING
    return re.compile(rf"(?i)(?<![^\W_])(?:{'|'.join(forms)})(?![^\W_])")


def _name_pattern(value: str | None) -> re.Pattern[str] | None:
    """Return a pattern for an id in any surrounding; short ones only as a word of their own, or they would tear text apart."""
    text = (value or "").strip()
    if not text or text == MASK:
        return None
    forms = {re.escape(text), re.escape(json.dumps(text)[1:-1])}
    if text[0].isalnum() and text[-1].isalnum():
        # As a part of a file's name, or of a function's, other signs stand where its own are.
        forms.add(re.sub(r"(?:\\?[\W_])+", lambda _: r"[\W_]{1,4}", re.escape(text)))
    else:
        forms.add(re.escape(re.sub(r'[<>:"/\\|?*]', "-", text)))
    body = "(?:" + "|".join(sorted(forms, key=len, reverse=True)) + ")"
    if text.isdigit():
        return re.compile(rf"(?<!\d){body}(?!\d)" if len(text) > 2 else rf"(?<![\w.]){body}(?![\w.])")
    if len(text) >= 6:
        return re.compile(body, re.IGNORECASE)
    return re.compile(rf"(?<![^\W_]){body}(?![^\W_])", re.IGNORECASE)
