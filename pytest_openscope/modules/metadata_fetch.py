"""Ready-made steps: fetch what the metadata service knows of the subject and of its procedures, and keep it in the session."""

from __future__ import annotations

from typing import Any

from ..config import Id, PathText, key, seconds
from .context import ModuleContext
from .failures import ModuleFailed
from .metadata_service import Answer, ServiceParameters, as_text, ask_service, keep
from .parameters import SecondsText


class SubjectFetch(ServiceParameters):
    """Parameters of ``metadata_subject_fetch``."""

    metadata_subject_id: Id | None = key(None, "the subject to ask for; default: the session's")
    metadata_mouse_id: Id | None = key(None, "the same")
    subject_id: Id | None = key(None, "the session's subject")
    mouse_id: Id | None = key(None, "the same, in older files")
    metadata_subject_path: PathText = key("subject.json", "file that gets the answer")

    @property
    def subject(self) -> str:
        return self.metadata_subject_id or self.metadata_mouse_id or self.subject_id or self.mouse_id or ""

    def would(self) -> str:
        return f"ask {self.server} for the subject of {self.subject} and keep it in {self.metadata_subject_path}"


class ProceduresFetch(SubjectFetch):
    """Parameters of ``metadata_procedures_fetch``."""

    metadata_procedures_path: PathText = key("procedures.json", "file that gets the answer")
    metadata_procedures_timeout: SecondsText = seconds(
        45.0, "longest wait for one answer: this one takes the service long", 0.001
    )
    timeout_s: SecondsText | None = seconds(180.0, "longest wait for the service, all attempts together", 0.001)

    @property
    def attempt_s(self) -> float:
        given = "metadata_procedures_timeout" in self.model_fields_set
        return (
            self.metadata_procedures_timeout if given else max(self.metadata_procedures_timeout, self.metadata_service_timeout)
        )

    def would(self) -> str:
        return f"ask {self.server} for the procedures of {self.subject} and keep it in {self.metadata_procedures_path}"


def metadata_subject_fetch(context: ModuleContext, parameters: SubjectFetch) -> Any:
    """Ask ``GET /api/v2/subject/{id}`` and keep the answer, as it is, in ``subject.json``.

    A refusal (status 400) is a warning, and its body is kept: the service knows the subject and finds its record wanting.

    Returns:
        The answer.

    Raises:
        ModuleFailed: the service cannot be reached, does not know the subject, or says what is no JSON.
        StepTimedOut: it took longer than ``timeout_s``.
    """
    return _fetch(context, parameters, "subject", parameters.metadata_subject_path).content


def metadata_procedures_fetch(context: ModuleContext, parameters: ProceduresFetch) -> Any:
    """Ask ``GET /api/v2/procedures/{id}`` and keep the answer, as it is, in ``procedures.json``.

    A refusal (status 400) is a warning, and its body is kept.

    Returns:
        The answer.

    Raises:
        ModuleFailed: the service cannot be reached, has no procedures of the subject, or says what is no JSON.
        StepTimedOut: it took longer than ``timeout_s``.
    """
    return _fetch(context, parameters, "procedures", parameters.metadata_procedures_path).content


def _fetch(context: ModuleContext, parameters: SubjectFetch, kind: str, place: str) -> Answer:
    subject = parameters.subject
    if not subject:
        raise ModuleFailed("subject_id is missing -> give it, or metadata_subject_id")
    answer = ask_service(parameters, ("api", "v2", kind, subject), context.logger)
    path = context.path(place)
    if not answer.accepted:
        context.logger.warning("the service refuses the %s of %s (status 400):\n%s", kind, subject, as_text(answer.content))
    elif kind == "procedures" and not answer.content:
        raise ModuleFailed(f"the service has no procedures of {subject}")
    if answer.accepted or answer.content:
        keep(path, answer.content)
        context.logger.info("the service's answer on the %s of %s is in %s", kind, subject, path)
    return answer
