"""A Bonsai workflow, read without Bonsai by the package baghban (extra ``bonsai``): faults, properties, declared outputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import nearest
from ..system import native_path
from .paths import is_absolute, is_template

#: Files and folders around a workflow that are looked through.
_MOST_ENTRIES = 20_000


class WorkflowRefused(Exception):  # noqa: N818 - it says what happened
    """Bonsai cannot read the file, or refuses the command line; ``key`` is the parameter that is to be corrected."""

    def __init__(self, problem: str, remedy: str, key: str) -> None:
        super().__init__(problem)
        self.remedy, self.key = remedy, key


@dataclass(frozen=True)
class Fault:
    """What is wrong with a workflow, or with what is passed to it.

    ``severity`` is ``error``, ``warning`` or ``info``; ``code`` is baghban's (``SILENT_OVERWRITE``), or ``PROPERTY``.
    """

    code: str
    severity: str
    problem: str
    remedy: str = ""


@dataclass(frozen=True)
class Output:
    """A file that a writer of the workflow declares.

    Attributes:
        writer: ``VideoWriter 'left.avi' #4``, with what contains it.
        path: as Bonsai will have it.
        suffixed: Bonsai adds a number or a time to the name.
        judged: False for a path that is only known while the workflow runs, for a pipe, and for one on a share.
    """

    writer: str
    path: str
    suffixed: bool
    judged: bool

    def place(self, folder: Path) -> Path:
        """Return where it is looked for: a relative path counts from the session folder."""
        path = native_path(self.path)
        return path if is_absolute(self.path) else folder / path

    def files(self, folder: Path) -> list[Path]:
        """Return the files that are there."""
        place = self.place(folder)
        if self.suffixed:
            wanted = (place.stem.casefold(), place.suffix.casefold())
            siblings = place.parent.iterdir() if place.parent.is_dir() else iter(())
            return [one for one in siblings if one.stem.casefold().startswith(wanted[0]) and one.suffix.casefold() == wanted[1]]
        if place.is_dir():
            return [one for one in place.rglob("*") if one.is_file()]
        return [place] if place.is_file() else []


@dataclass
class Reading:
    """What is known of a workflow as one command line runs it.

    ``faults`` has the worst first, ``outputs`` the files that its enabled writers declare, and ``provenance`` says which
    protocol this is: fingerprint, effective values, packages.
    """

    faults: list[Fault] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)


def read_workflow(workflow: Path, arguments: Sequence[str]) -> Reading:
    """Read a workflow with the values that Bonsai's arguments, the workflow among them, give it.

    Raises:
        ImportError: baghban is not installed.
        WorkflowRefused: the file is no workflow, or Bonsai would stop at the command line.
    """
    import baghban
    import baghban.project

    try:
        launch = baghban.parse_command_line(list(arguments))
    except ValueError as error:
        problem = f"Bonsai refuses the command line: {error}"
        raise WorkflowRefused(problem, "correct script_parameters", "script_parameters") from error
    try:
        document = baghban.load(workflow, discover=_is_quickly_walked(baghban.project.repository_root(workflow)))
    except (baghban.WorkflowLoadError, OSError, UnicodeError) as error:
        problem = f"is no workflow that Bonsai can read: {error}"
        raise WorkflowRefused(problem, "open it in Bonsai and save it again", "script_path") from error
    provenance = _provenance(baghban, document, launch.properties)
    assignments = baghban.set_properties(document, launch.properties)
    exposed = [str(one["name"]) for one in baghban.parameters(document)]
    refused = [Fault("PROPERTY", "error", *_refusal(one, exposed)) for one in assignments if one.status != "ok"]
    idle = [
        Fault("PROPERTY", "warning", f"-p {one.name}: {one.note}", "connect it, or leave it out of script_parameters")
        for one in assignments
        if one.status == "ok" and one.note
    ]
    report = baghban.check(document)
    found = [
        Fault(one.code, one.severity, f"{one.code}: {one.location}: {one.message}", one.hint)
        for one in report.findings
        if not _is_new_in_each_session(document, one, launch.properties)
    ]
    order = ("error", "warning", "info")
    return Reading(
        faults=sorted([*refused, *idle, *found], key=lambda one: order.index(one.severity)),
        outputs=[_output(one) for one in baghban.outputs(document)],
        not_checked=[str(one) for one in report.skipped],
        provenance={
            **provenance,
            "properties": {
                one.name: {"value": one.value, "status": one.status, "saved_value": one.previous, "sets": one.targets}
                for one in assignments
            },
            "parameters": {str(one["name"]): one["value"] for one in baghban.parameters(document)},
            "module_packages": report.packages,
        },
    )


def _is_quickly_walked(folder: Path) -> bool:
    """Tell whether a folder is small: baghban looks through all of the repository for packages that modules may come from.

    A workflow that lies beside the data of a year must not hold up a session.
    """
    entries = 0
    for _, folders, files in os.walk(folder):
        entries += len(folders) + len(files)
        if entries > _MOST_ENTRIES:
            return False
    return True


def _provenance(baghban: Any, document: Any, properties: dict[str, str]) -> dict[str, Any]:
    return {
        "fingerprint": baghban.fingerprint(document),
        "bonsai_version": document.version,
        "baghban_version": baghban.__version__,
        "includes": {
            node.include.path: node.include.status for node in document.walk() if node.is_include and node.include is not None
        },
        "fields": baghban.provenance(document, properties),
    }


def _refusal(assignment: Any, exposed: Sequence[str]) -> tuple[str, str]:
    problem = f"-p {assignment.name}: Bonsai refuses it: {assignment.note}"
    near = nearest(assignment.name, exposed, slack=1) if assignment.status == "unknown" else None
    if near:
        return problem, f"did you mean {near}?"
    if assignment.name == "RootFolder":
        return problem, "externalize a property RootFolder in the workflow: the session folder is passed in it"
    return problem, "correct script_parameters, or externalize the property in the workflow"


def _is_new_in_each_session(document: Any, finding: Any, properties: dict[str, str]) -> bool:
    """Tell whether a file that would be replaced by the next session has a name that this session passes to the workflow."""
    if finding.code != "SILENT_OVERWRITE" or finding.severity != "info":
        return False
    node = next((one for one in document.walk() if one.id == finding.node), None)
    return node is not None and node.filename_property in node.overridden


def _output(found: dict[str, Any]) -> Output:
    path, suffix = str(found["path"] or ""), str(found["suffix"] or "None").strip()
    # A share that does not answer must not hold up the session; a pipe is no file.
    here = not path.startswith(("\\\\", "//"))
    judged = bool(path) and here and not found["set_at_run_time"] and not is_template(path)
    return Output(str(found["location"]), path, suffix != "None", judged)
