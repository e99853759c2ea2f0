"""Keeping secrets out of what is written, shown or sent.

Two means, for two prices: *exact* secrets (values that the configuration or the environment names as secret) are replaced
wherever they stand, cheaply enough for every log record; *patterns* (what looks like a token, a URL's password, a private
key) cost a regular expression and serve files and reports. Both leave ``***`` behind. Masking errs towards too much.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any
from urllib.parse import quote, quote_plus

from .secret_shapes import MASK, OPTION, PATTERNS, SIGNS, STEMS, URL_CREDENTIALS, URL_TOKEN, is_password_option

#: Shorter values are no secrets worth the damage: masking ``abc`` would tear words apart everywhere.
MIN_SECRET_CHARS = 4
#: A secret of digits alone must be longer, or years and port numbers would vanish from every line.
MIN_DIGITS = 6


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SECRET_WORDS = _set(
    "token tokens password passwords passwd passphrase passwort pwd secret secrets apikey apikeys credential credentials"
    " authorization auth oauth bearer cookie jwt privatekey"
)
_SECRET_ENDINGS = ("password", "passwd", "passphrase", "secret", "token", "apikey", "privatekey", "secretkey", "accesskey")
#: ``key`` alone says nothing (``session_key``, ``key_param``); after one of these words it is a secret.
_KEY_OWNERS = _set("api private secret access encryption signing account storage license licence deploy webhook aws")
#: ``pass`` is a filter (``low_pass_hz``) unless it follows the name of something that one logs in to.
_PASS_OWNERS = _set("user smtp db database ftp sftp ssh login http proxy mail email root admin mqtt mysql redis")
_PAT_OWNERS = _set("github gh git gitlab azure")
#: After a secret word these say that the value only talks *about* the secret.
_ABOUT = _set(
    "env environ var variable variables path paths file filename folder dir directory name names param parameter"
    " parameters url uri endpoint type kind format count length len size limit method mode scheme enabled required prompt"
    " policy expires expiry expiration ttl timeout s sec seconds ms id hint field header scope scopes help doc"
    " description regex pattern status owner server host port provider"
)
_COUNTED = _set("max min num number total count used n")
#: Inside ``credentials: {…}`` these entries are no secrets themselves.
_PUBLIC = _set("user username login email name host hostname server port url uri type kind env file path id scheme method")
_NO_SECRETS = frozenset({"true", "false", "none", "null", MASK, "string", "bytes"})

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ENVIRONMENT = r"\$\{(\w+)\}|\$(\w+)|%(\w+)%"
#: What stands for another value: environment variables and the configuration's placeholders.
REFERENCE = re.compile(r"\$\{\w+\}|\$\w+|%\w+%|\{[\w.:\- ]+\}")


@lru_cache(maxsize=4096)
def is_secret_key(key: str) -> bool:
    """Tell whether a value under this key must never be shown: ``apiKey``, ``db_password``; not ``token_env``, ``keyboard``."""
    words = [word.lower() for word in _WORDS.findall(key)]
    for index, word in enumerate(words):
        before = words[index - 1] if index else ""
        secret = (
            word in _SECRET_WORDS
            or word.endswith(_SECRET_ENDINGS)
            or (word in ("key", "keys") and before in _KEY_OWNERS)
            or (word == "pass" and before in _PASS_OWNERS)
            or (word == "pat" and before in _PAT_OWNERS)
        )
        if secret and before not in _COUNTED and _ABOUT.isdisjoint(words[index + 1 :]):
            return True
    return False


def _is_hidden(key: str, secret: bool) -> bool:
    """Tell whether an entry of a mapping is secret; in a secret one (``credentials: {user: …}``) all but public parts are."""
    words = _WORDS.findall(key)
    is_public = bool(words) and words[-1].lower() in _PUBLIC
    return is_secret_key(key) or (secret and not is_public)


def collect_secrets(value: Any, environ: Mapping[str, str] | None = None) -> frozenset[str]:
    """Return the secrets that a configuration value holds.

    These are the values of secret-looking keys at any depth and the passwords of URLs. Where such a value refers to an
    environment variable (``$X``, ``${X}``, ``%X%``), the variable's content is the secret, not the reference; a variable with a
    secret-looking name is one wherever it is referred to.
    """
    found: set[str] = set()
    for _, item, secret in _leaves(value):
        if isinstance(item, str):
            found.update(_secrets_in_text(item, secret, environ or {}))
        elif secret and item is not None and not isinstance(item, bool):
            found.add(str(item))
    return frozenset(secret for secret in found if _worth_masking(secret))


def _leaves(value: Any, place: str = "", secret: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """Yield what is in a configuration value at any depth: dotted key, value, and whether the key says that it is secret."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{place}.{key}" if place else str(key), _is_hidden(str(key), secret))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from _leaves(item, place, secret)
    else:
        yield place, value, secret


def _secrets_in_text(text: str, secret: bool, environ: Mapping[str, str]) -> Iterator[str]:
    expanded = text
    for match in re.finditer(_ENVIRONMENT, text):
        name = match[1] or match[2] or match[3]
        content = environ.get(name)
        if content is not None:
            expanded = expanded.replace(match[0], content)
            if secret or is_secret_key(name):
                yield content
    if "://" in expanded:
        for match in URL_CREDENTIALS.finditer(expanded):
            if match[3]:
                yield match[3]
            if _mask_patterns(match[2]) != match[2]:
                yield match[2]
        for match in URL_TOKEN.finditer(expanded):
            yield match[2]
    if secret and REFERENCE.sub("", expanded).strip():
        yield expanded
        if "\n" in expanded:
            yield from (line for line in expanded.splitlines() if len(line) >= 16 and not line.startswith("-----"))


def _worth_masking(secret: str) -> bool:
    text = secret.strip()
    if text.lower() in _NO_SECRETS or not text.strip("*"):
        return False
    return len(text) >= (MIN_DIGITS if text.isdigit() else MIN_SECRET_CHARS)


#: Words that this package writes itself: hidden, they would take the meaning out of every log and state.
_OWN_WORDS = _set(
    "passed failed error interrupted timeout crashed skipped pre_acquisition acquisition post_acquisition debug info warning"
    " critical abort continue prompt exception step test entry fixture usage internal collection crash interrupt verified"
    " pending off outcome exit code lost log records session started stopped subject user rig host command openscope pytest"
    " python launcher stdout stderr unknown phase outcome device devices notes report mirror journal"
)


def _is_own_word(secret: str) -> bool:
    """Tell whether a secret is a word of this package's own, which is hidden nowhere but under its key."""
    return secret.strip().lower() in _OWN_WORDS


def _is_ordinary_word(secret: str) -> bool:
    """Tell whether a secret is so weak that names of steps, devices and keys may hold it by chance."""
    text = secret.strip()
    return text.isalpha() and text.isascii() and len(text) <= 12 and text in (text.lower(), text.upper(), text.title())


def weak_secret_keys(value: Any) -> Iterator[str]:
    """Yield the dotted keys of a configuration whose secret is an ordinary word."""
    for place, item, secret in _leaves(value):
        if secret and isinstance(item, str) and _worth_masking(item) and (_is_own_word(item) or _is_ordinary_word(item)):
            yield place


class ExactMasker:
    """Replaces known secrets in a text; returns the very same text when none is in it.

    A word that this package writes itself (``passed``, ``INFO``) is not replaced, and :attr:`names` leaves ordinary words.

    Escaped spellings (JSON, ``repr``, percent-encoding) of each secret are replaced too, longest first, so that no secret's
    end is left over when another one is its beginning.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.secrets = frozenset(secret for secret in secrets if _worth_masking(secret) and not _is_own_word(secret))
        forms = {form for secret in self.secrets for form in _spellings(secret)}
        self._spellings = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._spellings))) if self._spellings else None
        strong = frozenset(secret for secret in self.secrets if not _is_ordinary_word(secret))
        self._names = self if strong == self.secrets else ExactMasker(strong)

    def __call__(self, text: str) -> str:
        """Return ``text`` without the secrets."""
        if self._pattern is None:
            return text
        for spelling in self._spellings:
            if spelling in text:
                return self._pattern.sub(MASK, text)
        return text

    @property
    def names(self) -> ExactMasker:
        """The masker of names (of steps, loggers, keys), which an ordinary word that is somebody's password may be."""
        return self._names

    def __bool__(self) -> bool:
        return self._pattern is not None


def _spellings(secret: str) -> Iterator[str]:
    yield secret
    if secret.strip() != secret:
        yield secret.strip()
    if secret.isalnum() and secret.isascii():
        return
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    data = secret.encode("utf-8", "surrogatepass")
    yield from (quote(data, safe=""), quote(data), quote_plus(data))


_KEY = re.compile(r"""(?<![\w.])(?<!\w-)(?P<key>[A-Za-z_][\w.\-]{1,79})\\?["']?\s{0,8}(?:=(?!=)|:(?!//))\s{0,8}""")
_VALUE = re.compile(r""""(?:[^"\\\n]|\\.){0,8192}"|'(?:[^'\\\n]|\\.){0,8192}'|\\"[^"\\\n]{0,8192}|[^\s,;&"'<>|]{1,8192}""")
_QUOTES = ('"', "'", '\\"')
_PLAIN_VALUES = _set("none null true false str int bytes bool any optional string missing unset \\") | {MASK}


def _mask_key_values(text: str) -> str:
    """Hide the values of secret-looking keys; what stands behind a harmless key (``url: /x?token=…``) is looked at as well."""
    parts: list[str] = []
    kept, position = 0, 0
    while (match := _KEY.search(text, position)) is not None:
        position = match.end()
        secret = is_secret_key(match["key"].rpartition(".")[2] or match["key"])
        found = _VALUE.match(text, position) if secret or text.startswith(_QUOTES, position) else None
        if found is None:
            continue
        parts += [text[kept:position], _mask_value_text(found[0], secret)]
        kept = position = found.end()
    return "".join([*parts, text[kept:]])


def _mask_value_text(value: str, secret: bool) -> str:
    quote = value[0] if value[0] in "\"'" else ('\\"' if value.startswith('\\"') else "")
    closing = quote if quote in ('"', "'") else ""
    inner = value[len(quote) : len(value) - len(closing)]
    if REFERENCE.fullmatch(inner):
        return value
    if not secret:
        # JSON within JSON: the value of a harmless key may hold others.
        return quote + _mask_key_values(inner) + closing
    if not quote:
        inner = inner.rstrip(")]}")
        closing = value[len(inner) :]
    if not inner or inner.lower() in _PLAIN_VALUES or inner.startswith(MASK):
        return value
    return quote + MASK + closing


def mask_text(text: str, secrets: Iterable[str] | ExactMasker = ()) -> str:
    """Return ``text`` without the given secrets and without whatever is shaped like one."""
    masker = secrets if isinstance(secrets, ExactMasker) else ExactMasker(secrets)
    return _mask_patterns(masker(text))


def _mask_patterns(text: str) -> str:
    if not SIGNS.search(text.casefold()):
        return text
    for pattern, replacement in PATTERNS:
        text = pattern.sub(replacement, text)
    text = OPTION.sub(_mask_option, text)
    if STEMS.search(text.casefold()):
        text = _mask_key_values(text)
    return text


def _mask_option(match: re.Match[str]) -> str:
    """Hide what stands behind an option that takes a secret: ``--password X``, ``'--token', 'X'``, ``-p X``."""
    before = match.string[max(0, match.start() - 200) : match.start()]
    if not _takes_secret(match["option"], match["value"], before):
        return match[0]
    return f"{match['option']}{match['join']}{MASK}"


def _takes_secret(option: str, value: str, before: str) -> bool:
    if value.startswith("-") or value.lower() in _PLAIN_VALUES or REFERENCE.fullmatch(value):
        return False
    if option.startswith("--") and is_secret_key(option[2:]):
        return True
    return is_password_option(option, value, before)


def mask_json(value: Any, secrets: Iterable[str] | ExactMasker = ()) -> Any:
    """Return a copy of a JSON-like value with :func:`mask_text` on all strings and the values of secret-looking keys hidden.

    Null, booleans and references to environment variables or other keys stay, since they tell what is configured without
    giving anything away.
    """
    return _mask_value(value, False, secrets if isinstance(secrets, ExactMasker) else ExactMasker(secrets))


def _mask_value(value: Any, secret: bool, masker: ExactMasker) -> Any:
    if isinstance(value, Mapping):
        masked = {}
        for key, item in value.items():
            masked[mask_text(str(key), masker.names)] = _mask_value(item, _is_hidden(str(key), secret), masker)
        return masked
    if isinstance(value, (list, tuple)):
        return _mask_arguments([_mask_value(item, secret, masker) for item in value])
    if value is None or isinstance(value, bool):
        return value
    if secret:
        return value if isinstance(value, str) and (not value or REFERENCE.fullmatch(value)) else MASK
    return mask_text(value, masker) if isinstance(value, str) else value


def _mask_arguments(items: list[Any]) -> list[Any]:
    """Hide what follows an option that takes a secret in a list of arguments."""
    for index, (option, value) in enumerate(pairwise(items)):
        if isinstance(option, str) and isinstance(value, str) and option.startswith("-"):
            before = " ".join(item for item in items[:index] if isinstance(item, str))
            if _takes_secret(option, value, before):
                items[index + 1] = MASK
    return items
