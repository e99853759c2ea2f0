"""Asking the metadata service: bounded, tried again, its refusals kept."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pydantic import field_validator

from ..config import Text, key, seconds
from ..log import mask_text
from ..system import json_bytes, write_atomic
from .failures import ModuleFailed, StepTimedOut
from .parameters import Deadline, IntegerText, SecondsText, StepParameters, within

#: The service is busy or out of order: another attempt may succeed.
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_REFUSAL = 400
_MOST_BYTES = 64 * 1024**2
_SHOWN_CHARS = 500


class ServiceParameters(StepParameters):
    """Parameters of every step that asks the metadata service."""

    of_the_rig = ("metadata_service_base_url",)

    metadata_service_base_url: Text | None = key(None, "address of the service, mostly given by the rig file")
    metadata_api_base_url: Text | None = key(None, "older spelling of metadata_service_base_url")
    metadata_service_timeout: SecondsText = seconds(10.0, "longest wait for one answer", 0.001)
    metadata_service_retries: IntegerText = key(2, "further attempts where it is busy or cannot be reached", "", 0, 100)
    metadata_service_retry_delay: SecondsText = seconds(1.0, "wait before the second attempt; doubled before each further one")
    timeout_s: SecondsText | None = seconds(60.0, "longest wait for the service, all attempts together", 0.001)

    @field_validator("metadata_service_base_url", "metadata_api_base_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if not value:
            return None
        parts = urlsplit(value.strip())
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
            raise ValueError(f"{mask_text(value)!r} is no address of a server, such as http://aind-metadata-service")
        return value.strip()

    def missing(self) -> Iterator[tuple[str, str]]:
        if not self.base_url:
            yield "metadata_service_base_url", "give it in the rig file, e.g. http://aind-metadata-service"

    @property
    def base_url(self) -> str:
        """The address without a slash at its end; "" for none."""
        return (self.metadata_service_base_url or self.metadata_api_base_url or "").rstrip("/")

    @property
    def server(self) -> str:
        return mask_text(self.base_url) or "the metadata service"

    @property
    def attempt_s(self) -> float:
        return self.metadata_service_timeout

    def url(self, *path: str) -> str:
        """Return the address of what lies at a path, whose parts may hold any character."""
        return "/".join([self.base_url, *(quote(part, safe="") for part in path)])


@dataclass(frozen=True)
class Answer:
    """What the service said.

    Attributes:
        content: the JSON value; with a refusal the text where it is none.
        accepted: False for a refusal, status 400: the service has the data and finds them wanting.
    """

    content: Any
    accepted: bool = True


class _Passing(Exception):  # noqa: N818 - caught here
    """An attempt failed in a way that may pass; ``wait_s`` is what the service asks for."""

    def __init__(self, problem: str, wait_s: float = 0.0) -> None:
        super().__init__(problem)
        self.wait_s = wait_s


def ask_service(parameters: ServiceParameters, path: tuple[str, ...], log: logging.Logger) -> Answer:
    """Return the service's answer to ``GET <base URL>/<path>``.

    Raises:
        ModuleFailed: it cannot be reached, refuses in another way than with status 400, or says what is no JSON.
        StepTimedOut: ``timeout_s`` is over.
    """
    url = parameters.url(*path)
    shown = mask_text(url)
    deadline = Deadline(parameters.timeout_s, f"asking {shown}")
    delay_s = parameters.metadata_service_retry_delay
    for attempt in range(1, parameters.metadata_service_retries + 2):
        limit_s = deadline.left_s(parameters.attempt_s)
        try:
            return within(limit_s, "the answer", lambda limit_s=limit_s: _get(url, limit_s))  # type: ignore[misc]
        except StepTimedOut:
            problem, wait_s = f"no whole answer within {limit_s:g} s", 0.0
        except _Passing as passing:
            problem, wait_s = mask_text(str(passing)), passing.wait_s
        log.warning("attempt %d: %s: %s", attempt, shown, problem)
        deadline.check()
        if attempt <= parameters.metadata_service_retries:
            time.sleep(deadline.left_s(max(delay_s, wait_s)))
            delay_s *= 2
    raise ModuleFailed(f"{shown}: {problem} ({attempt} attempts)")


def _get(url: str, limit_s: float) -> Answer:
    import requests

    errors = requests.exceptions
    try:
        # Who waits for the answer has left before a read times out.
        limits = (limit_s, limit_s + 1)
        with requests.get(url, headers={"Accept": "application/json"}, timeout=limits, stream=True) as response:
            status, body = response.status_code, _body(response)
            encoding, wait = response.encoding or "utf-8", response.headers.get("Retry-After", "")
    except (errors.ConnectionError, errors.Timeout, errors.ChunkedEncodingError, errors.ContentDecodingError) as error:
        raise _Passing(f"cannot be reached: {_cause(error)}") from None
    except errors.RequestException as error:
        raise ModuleFailed(f"{mask_text(url)}: {_cause(error)}") from None
    text = body.decode(encoding if status != 200 else "utf-8", "replace").strip()
    try:
        content: Any = json.loads(body)
    except ValueError:
        content = None
        if status == 200:
            raise ModuleFailed(f"{mask_text(url)} answers what is no JSON: {mask_text(text[:_SHOWN_CHARS])!r}") from None
    if status == 200:
        return Answer(content)
    if status == _REFUSAL:
        return Answer(content if content is not None else text, accepted=False)
    said = f"status {status}: {mask_text(text[:_SHOWN_CHARS]) or 'no body'}"
    if status in _PASSING:
        raise _Passing(said, float(wait) if wait.isdigit() else 0.0)
    raise ModuleFailed(f"{mask_text(url)} answers with {said}")


def _body(response: Any) -> bytes:
    """Read an answer that may not fill the memory."""
    body = bytearray()
    for piece in response.iter_content(65_536):
        body += piece
        if len(body) > _MOST_BYTES:
            raise ModuleFailed(f"{mask_text(response.url)} answers with more than {_MOST_BYTES // 1024**2} MiB")
    return bytes(body)


def _cause(error: BaseException) -> str:
    """Return the innermost reason; the outer ones repeat the address."""
    inner: Any = error
    while isinstance(inner, BaseException):
        error = inner
        inner = getattr(error, "reason", None) or next((one for one in error.args if isinstance(one, BaseException)), None)
    text = str(error).rpartition(">: ")[2] or type(error).__name__
    return text if text.isprintable() else repr(text)


def keep(path: Path, content: Any) -> None:
    """Write what the service said, JSON as such and anything else as its text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content.encode("utf-8") if isinstance(content, str) else json_bytes(content))


def as_text(content: Any) -> str:
    """Return what the service said for the log."""
    text = content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False)
    return mask_text(text if len(text) <= 10_000 else f"{text[:10_000]}\n… (cut short)")
