"""Ready-made step: describe the session to downstream programs.

With the extra ``aind``: ``acquisition.json``, made and checked by the installed ``aind-data-schema``. Without it:
``session.json``, a small file of our own, described in the reference.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ValidationError

from .. import __version__
from ..config import Id, PathText, Text, Texts, key
from ..system import json_bytes, write_atomic
from .context import ModuleContext
from .failures import ModuleFailed
from .metadata_validators import Ids
from .parameters import FlagText, StepParameters, within
from .session_facts import SessionFacts

ACQUISITION_FILE = "acquisition.json"
SESSION_FILE = "session.json"
MINIMAL_FORMAT = "openscope-session"
_INSTALL = 'pip install "pytest-openscope[aind]"'


def schema_is_installed() -> bool:
    """Tell whether the extra ``aind`` is there."""
    return importlib.util.find_spec("aind_data_schema") is not None


def _streams(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, (list, tuple)) and all(isinstance(one, Mapping) for one in value)):
        return value if isinstance(value, str) else tuple(value)
    raise ValueError("a list of streams, or the path of a JSON file with one, expected")


class SessionCreator(StepParameters):
    """Parameters of ``session_creator``."""

    of_the_rig = ("session_format",)

    output_session_folder: PathText | None = key(None, "the session's folder; default: this session's")
    session_format: Literal["auto", "acquisition", "minimal"] = key(
        "auto", "acquisition: aind-data-schema; minimal: the small file; auto: acquisition where the extra aind is installed"
    )
    session_type: Text = key("Behavior", "acquisition_type of the file")
    session_modalities: Texts = key(("behavior",), "abbreviations as the schema has them, e.g. behavior-videos, slap2, ecephys")
    session_active_devices: Texts | None = key(None, "devices that acquired, as the instrument names them; default: the rig's")
    session_data_streams: Annotated[Any, BeforeValidator(_streams)] = key(
        None, "the lab's own data streams as the schema has them, or a JSON file with them; instead of the one that is made"
    )
    session_experimenters: Texts | None = key(None, "who ran the session; default: user_id")
    ethics_review_id: Ids = key((), "ethics review, or several")
    protocol_id: Ids = key((), "protocol, or several")
    mouse_platform_name: Id | None = key(None, "what the animal is on")
    active_mouse_platform: FlagText = key(False, "whether it is driven; minimal only: the schema has no place for it")
    instrument_id: Id | None = key(None, "the instrument; default: rig_id")
    force: FlagText = key(False, "replace a file that is there")

    def missing(self) -> Iterator[tuple[str, str]]:
        if self.session_format == "acquisition" and not schema_is_installed():
            yield "session_format", f"acquisition needs the extra aind: {_INSTALL}"

    @property
    def makes_acquisition(self) -> bool:
        return self.session_format == "acquisition" or (self.session_format == "auto" and schema_is_installed())

    @property
    def file_name(self) -> str:
        return ACQUISITION_FILE if self.makes_acquisition else SESSION_FILE

    def would(self) -> str:
        return f"describe the session in {self.file_name}"


def session_creator(context: ModuleContext, parameters: SessionCreator) -> Path:
    """Describe the session from its folder, also long after it.

    The times are those of the acquisition; weights come from ``mouse_weight.csv``, code from the experiment's repository, notes
    from ``end_state.json``. A file that is there stays, unless ``force``. Modalities for which the schema demands device
    configurations that a session does not know become an ``ExternalDataStream``, with a warning.

    Returns:
        The file.

    Raises:
        ModuleFailed: it is no session's folder, or the schema does not accept the description; the file is not written then.
    """
    folder = context.path(parameters.output_session_folder or "")
    path = folder / parameters.file_name
    if path.exists() and not parameters.force:
        context.logger.info("%s is there already and stays as it is (force replaces it)", path)
        return path
    if parameters.session_format == "auto" and not parameters.makes_acquisition:
        context.logger.warning("aind-data-schema is not installed (%s): %s is the small file of our own", _INSTALL, path.name)
    facts = SessionFacts.read(folder)

    def make() -> bytes:
        if not parameters.makes_acquisition:
            return json_bytes(minimal_session(facts, parameters))
        return acquisition_json(_acquisition(context, facts, parameters))

    content = within(parameters.timeout_s, f"making {path.name}", make)
    write_atomic(path, content)
    context.logger.info("wrote %s", path)
    context.attach(path)
    return path


def minimal_session(facts: SessionFacts, parameters: SessionCreator) -> dict[str, Any]:
    """Return the content of the small ``session.json``; its keys are those of the launcher's, as far as it had them."""
    begin, end = facts.acquired
    weights_g = facts.weights_g()
    stream = {
        "stream_start_time": begin.isoformat(),
        "stream_end_time": end.isoformat(),
        "stream_modalities": list(parameters.session_modalities),
        "active_devices": _devices(facts, parameters),
        "software": [{"name": "pytest-openscope", "version": __version__, "url": None, "parameters": {}}],
    }
    script = _script(facts)
    if script:
        stream["software"] = [*stream["software"], script]
    return {
        "format": MINIMAL_FORMAT,
        "format_version": 1,
        "session_uuid": facts.value("session_uuid"),
        "subject_id": facts.subject_id,
        "experimenter_full_name": _experimenters(facts, parameters),
        "session_start_time": facts.started.isoformat(),
        "session_end_time": facts.ended.isoformat(),
        "session_type": parameters.session_type,
        "rig_id": parameters.instrument_id or facts.rig_id,
        "protocol_id": list(parameters.protocol_id),
        "ethics_review_id": list(parameters.ethics_review_id),
        "mouse_platform_name": parameters.mouse_platform_name,
        "active_mouse_platform": parameters.active_mouse_platform,
        "animal_weight_prior_g": weights_g.get("pre"),
        "animal_weight_post_g": weights_g.get("post"),
        "notes": facts.notes or None,
        "data_streams": _given_streams(facts, parameters) or [stream],
    }


def acquisition_json(acquisition: Any) -> bytes:
    """Return the file's content for an acquisition of the schema, once the schema has read it back."""
    text: str = acquisition.model_dump_json(indent=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        type(acquisition).model_validate_json(text)
    return (text + "\n").encode("utf-8")


def validated(build: Any, what: str) -> Any:
    """Return what ``build`` makes with the schema's classes, whose own warnings are no mistakes of the lab.

    Raises:
        ModuleFailed: the schema does not accept it; each place is named.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return build()
        except ValidationError as error:
            places = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:10])
            raise ModuleFailed(f"aind-data-schema does not accept {what}: {places}") from error


def _acquisition(context: ModuleContext, facts: SessionFacts, parameters: SessionCreator) -> Any:
    weights_g = facts.weights_g()
    platform = parameters.mouse_platform_name
    if weights_g and not platform:
        context.logger.warning("the weights are left out: the schema has no place for them without mouse_platform_name")

    def build() -> Any:
        from aind_data_schema.core.acquisition import Acquisition, AcquisitionSubjectDetails

        details = None
        if platform:
            details = AcquisitionSubjectDetails(
                animal_weight_prior=_decimal(weights_g.get("pre")),
                animal_weight_post=_decimal(weights_g.get("post")),
                mouse_platform_name=platform,
            )
        return Acquisition(
            subject_id=facts.subject_id,
            acquisition_start_time=facts.started,
            acquisition_end_time=facts.ended,
            experimenters=_experimenters(facts, parameters),
            protocol_id=list(parameters.protocol_id) or None,
            ethics_review_id=list(parameters.ethics_review_id) or None,
            instrument_id=parameters.instrument_id or facts.rig_id or None,
            acquisition_type=parameters.session_type,
            notes=facts.notes or None,
            subject_details=details,
            data_streams=_given_streams(facts, parameters) or _made_streams(context, facts, parameters),
        )

    return validated(build, f"the description of {facts.folder.name}")


def _made_streams(context: ModuleContext, facts: SessionFacts, parameters: SessionCreator) -> list[Any]:
    """Return the session's stream; a second one for modalities whose devices would have to be described."""
    from aind_data_schema.core.acquisition import CONFIG_REQUIREMENTS, DataStream, ExternalDataStream

    begin, end = facts.acquired
    modalities = [_modality(name) for name in parameters.session_modalities]
    plain = [one for one in modalities if one.abbreviation not in CONFIG_REQUIREMENTS]
    described = [one for one in modalities if one.abbreviation in CONFIG_REQUIREMENTS]
    times = {"stream_start_time": begin, "stream_end_time": end, "notes": f"recorded with pytest-openscope {__version__}"}
    streams: list[Any] = []
    if plain:
        code = _code(facts)
        streams.append(
            DataStream(
                **times,
                modalities=plain,
                active_devices=_devices(facts, parameters),
                configurations=[],
                code=[code] if code is not None else None,
            )
        )
    if described:
        names = ", ".join(one.abbreviation for one in described)
        context.logger.warning(
            "%s: the schema wants their devices described; without session_data_streams they are an ExternalDataStream",
            names,
        )
        streams.append(ExternalDataStream(**times, modalities=described))
    return streams


def _modality(name: str) -> Any:
    from aind_data_schema_models.modalities import Modality

    known = {one.abbreviation: one for one in (one() if isinstance(one, type) else one for one in Modality.ALL)}
    if name not in known:
        raise ModuleFailed(f"session_modalities: the schema has no {name!r} -> it has {', '.join(known)}")
    return known[name]


def _code(facts: SessionFacts) -> Any:
    """Return the acquisition's script as the schema's code; None for no script."""
    from aind_data_schema.components.identifiers import Code

    script = _script(facts)
    if not script:
        return None
    return Code(
        url=script["url"],
        name=script["name"],
        version=script["version"],
        commit_hash=facts.repository.get("commit"),
        run_script=script["path"],
        parameters=script["parameters"] or None,
    )


def _script(facts: SessionFacts) -> dict[str, Any]:
    """Return what the acquisition ran; empty for nothing."""
    path = facts.parameters.get("script_path")
    if not path or facts.parameters.get("launcher") in (None, "base"):
        return {}
    path = str(path).replace("\\", "/")
    parameters = facts.parameters.get("script_parameters")
    return {
        "name": path.rpartition("/")[2],
        "version": facts.repository.get("commit"),
        "url": str(facts.repository.get("repository_url") or facts.parameters.get("repository_url") or path),
        "path": path,
        "parameters": dict(parameters) if isinstance(parameters, Mapping) else {},
    }


def _devices(facts: SessionFacts, parameters: SessionCreator) -> list[str]:
    return facts.device_names if parameters.session_active_devices is None else list(parameters.session_active_devices)


def _experimenters(facts: SessionFacts, parameters: SessionCreator) -> list[str]:
    if parameters.session_experimenters is not None:
        return list(parameters.session_experimenters)
    user = facts.value("user_id")
    return [str(user)] if user else []


def _given_streams(facts: SessionFacts, parameters: SessionCreator) -> list[Any]:
    """Return the lab's own streams; the session's times where they give none."""
    given = parameters.session_data_streams
    if isinstance(given, str):
        path = facts.folder / given.replace("\\", "/")
        try:
            given = _streams(json.loads(path.read_text("utf-8-sig")))
        except (OSError, ValueError) as error:
            raise ModuleFailed(f"session_data_streams: {path}: {error}") from error
    begin, end = facts.acquired
    times = {"stream_start_time": begin.isoformat(), "stream_end_time": end.isoformat()}
    return [{**times, **stream} for stream in given or ()]


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"
