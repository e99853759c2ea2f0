"""Ready-made steps: does the metadata service know project and protocol? The operator confirms, the answer is kept."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import AfterValidator

from ..config import Id, PathText, Text, Texts, key
from .context import ModuleContext
from .failures import ModuleFailed
from .metadata_service import ServiceParameters, as_text, ask_service, keep

_ATTEMPTS = 5


def _stripped(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text.strip() for text in texts if text.strip())


#: One name or number, or a list of them.
Ids = Annotated[Texts, AfterValidator(_stripped)]


class ProjectValidator(ServiceParameters):
    """Parameters of ``metadata_project_validator``."""

    metadata_project_name: Text | None = key(None, "the project")
    project_name: Text | None = key(None, "the same, where metadata_project_name is absent")
    projects: Ids = key((), "the first one is the project, where none of the two is given")
    protocol_id: Ids = key((), "the animal protocol, or several")
    operator: Id | None = key(None, "who runs the session, where user_id does not say")
    user_id: Id | None = key(None, "who runs the session")
    metadata_project_path: PathText = key("project.json", "file that gets project_name, protocol_id and operator")
    metadata_project_prompt: Text = key("Project name, as the metadata service has it", "question for the project")
    metadata_protocol_prompt: Text = key("Confirm animal protocol identifier", "question for the protocol")
    metadata_operator_prompt: Text = key("Confirm operator name", "question for who runs the session")

    @property
    def project(self) -> str:
        return self.metadata_project_name or self.project_name or (self.projects[0] if self.projects else "")

    def would(self) -> str:
        return f"look up project {self.project!r} at {self.server} and have the operator confirm it"


class ProtocolValidator(ServiceParameters):
    """Parameters of ``metadata_protocol_validator``."""

    metadata_protocol_name: Id | None = key(None, "the protocol")
    protocol_name: Id | None = key(None, "the same, where metadata_protocol_name is absent")
    protocol_id: Ids = key((), "the protocol, or several, where none of the two is given")
    metadata_protocol_prompt: Text = key("Enter protocol identifier", "question for the protocol")
    metadata_protocol_path: PathText = key("protocol.json", "file that gets the service's answer; a list for several protocols")

    @property
    def protocols(self) -> tuple[str, ...]:
        name = self.metadata_protocol_name or self.protocol_name
        return (name,) if name else self.protocol_id

    def would(self) -> str:
        return f"look up protocol {', '.join(self.protocols) or '(asked for)'} at {self.server}"


def metadata_project_validator(context: ModuleContext, parameters: ProjectValidator) -> dict[str, Any]:
    """Look the project up in ``GET /api/v2/project_names``; the operator confirms project, protocol and name.

    Without an operator what is given counts. Case does not matter; the service's spelling is kept. A project that the service
    does not have is chosen by the operator from the list, in five attempts. A refusal (status 400) is a warning, its body is
    kept as ``metadata_response``.

    Returns:
        What ``project.json`` holds: ``project_name``, ``protocol_id`` (a text, or a list of several), ``operator``.

    Raises:
        ModuleFailed: the project is not known, nobody names project or protocol, or the service cannot be asked.
        StepTimedOut: the service took longer than ``timeout_s``.
    """
    answer = ask_service(parameters, ("api", "v2", "project_names"), context.logger)
    names = [str(name).strip() for name in answer.content if str(name).strip()] if isinstance(answer.content, list) else []
    if answer.accepted and not names:
        raise ModuleFailed(f"the service names no projects: {as_text(answer.content)[:200]}")
    project = _confirmed(context, parameters.metadata_project_prompt, parameters.project)
    protocols = _split(_confirmed(context, parameters.metadata_protocol_prompt, ", ".join(parameters.protocol_id)))
    person = _confirmed(context, parameters.metadata_operator_prompt, parameters.operator or parameters.user_id or "")
    if not protocols:
        raise ModuleFailed("no protocol is given -> give protocol_id")
    if not person:
        context.logger.warning("nobody says who runs the session")
    record: dict[str, Any] = {
        "project_name": _chosen(context, parameters, project, names) if answer.accepted else project or None,
        "protocol_id": protocols[0] if len(protocols) == 1 else protocols,
        "operator": person or None,
    }
    if not answer.accepted:
        context.logger.warning("the service refuses to name its projects (status 400):\n%s", as_text(answer.content))
        record["metadata_response"] = answer.content
    path = context.path(parameters.metadata_project_path)
    keep(path, record)
    context.logger.info("project %r, protocol %s, operator %s: kept in %s", record["project_name"], protocols, person, path)
    return record


def metadata_protocol_validator(context: ModuleContext, parameters: ProtocolValidator) -> Any:
    """Look each protocol up at ``GET /api/v2/protocols/{id}`` and keep the answer; the operator confirms the ids.

    A refusal (status 400) is a warning, and its body is kept.

    Returns:
        The answer; a list for several protocols.

    Raises:
        ModuleFailed: the service does not know a protocol, cannot be asked, or nobody names one.
        StepTimedOut: the service took longer than ``timeout_s``.
    """
    protocols = _split(_confirmed(context, parameters.metadata_protocol_prompt, ", ".join(parameters.protocols)))
    if not protocols:
        raise ModuleFailed("no protocol is given -> give protocol_id")
    answers = []
    for protocol in protocols:
        answer = ask_service(parameters, ("api", "v2", "protocols", protocol), context.logger)
        if not answer.accepted:
            context.logger.warning("the service refuses protocol %s (status 400):\n%s", protocol, as_text(answer.content))
        answers.append(answer.content)
    content = answers[0] if len(answers) == 1 else answers
    path = context.path(parameters.metadata_protocol_path)
    if content:
        keep(path, content)
        context.logger.info("protocol %s: the service's answer is in %s", ", ".join(protocols), path)
    return content


def _confirmed(context: ModuleContext, prompt: str, given: str) -> str:
    """Return what the operator says; what is given for an empty answer, and where nobody is there."""
    try:
        return context.ask(prompt, given or None).strip() or given
    except EOFError:
        return given


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _chosen(context: ModuleContext, parameters: ProjectValidator, project: str, names: list[str]) -> str:
    """Return the project in the service's spelling."""
    known = {name.lower(): name for name in names}
    for asked in range(_ATTEMPTS):
        if project.lower() in known:
            break
        near = [known[name] for name in difflib.get_close_matches(project.lower(), known, n=3)]
        problem = f"the service has no project {project!r}" if project else "no project is given"
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(names)}"
        if not asked:
            context.logger.info("projects of the service:\n%s", "\n".join(f"- {name}" for name in names))
        try:
            project = context.ask(f"{problem} ({hint}). {parameters.metadata_project_prompt}").strip()
        except EOFError:
            raise ModuleFailed(f"{problem}: {hint}") from None
    if project.lower() not in known:
        raise ModuleFailed(f"no project of the service in {_ATTEMPTS} answers; the last: {project!r}")
    return known[project.lower()]
