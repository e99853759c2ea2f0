"""How a module's function is called, and what its return value means."""

from __future__ import annotations

import asyncio
import inspect
import numbers
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ..system import native_path
from .context import ModuleContext
from .failures import ModuleFailed

#: A single argument of one of these names takes the merged parameters.
PARAMETER_NAMES = frozenset({"params", "parameters", "merged_params", "config", "cfg"})
#: A script's single argument of one of these names takes the path of the JSON file that holds them.
FILE_NAMES = frozenset(
    {"param_file", "params_file", "parameter_file", "parameters_file", "param_path", "params_path", "parameter_path"}
)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_EMPTY = inspect.Parameter.empty


def call(function: Callable[..., Any], context: ModuleContext, step: str, *, ready_made: bool) -> Any:
    """Call ``function`` in the way its signature asks for, judge what it returns, and return it.

    Raises:
        ModuleFailed: the return value, or the code given to ``sys.exit``, says failure.
        Exception: whatever the function raises.
    """
    with ExitStack() as stack:
        arguments, keywords = _arguments(function, context, step, stack, ready_made=ready_made)
        result = _finish(function, arguments, keywords)
        judge(result, context)
        return result


def call_with(function: Callable[..., Any], given: Mapping[str, Any], context: ModuleContext) -> None:
    """Call a script's ``function`` with the keyword arguments that its entry gives (``function_args``, ``kwargs``).

    Relative values of names that end in ``_path`` or ``_file`` lie in the session folder, and so does ``output_filename``
    (of the entry or among the arguments), which becomes the argument ``output_path`` where the function has one that is not
    given. Arguments that the function does not have are left out, with a line in the log.

    Raises:
        ModuleFailed: as in :func:`call`.
        Exception: whatever the function raises, ``TypeError`` for arguments that are missing included.
    """
    parameters = _parameters(function)
    takes_any = not parameters or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY}
    keywords = {name: _resolved(name, value, context) for name, value in given.items()}
    if "output_path" in names and "output_path" not in keywords:
        filename = keywords.get("output_filename") or context.parameters.get("output_filename")
        if filename:
            keywords["output_path"] = str(context.path(str(filename)))
    for name in [name for name in keywords if not takes_any and name not in names]:
        value = keywords.pop(name)
        if name != "output_filename" or "output_path" not in names:
            context.logger.info("argument %s=%r is left out: the function does not have it", name, value)
    for parameter in parameters:
        if _wants_context(parameter) and parameter.name not in keywords:
            keywords[parameter.name] = context
    judge(_finish(function, [], keywords), context)


def judge(result: Any, context: ModuleContext) -> None:
    """Raise when a return value says failure.

    ``None``, ``True`` and numbers equal to 0 are success; ``False`` and every other number (NaN too) are failure; NumPy's
    scalars count like Python's. Anything else (a path, a table, a text) is the step's product: success, and logged.

    Raises:
        ModuleFailed: the value says failure.
    """
    value = _plain_number(result)
    if value is None or value is True:
        return
    if value is False:
        raise ModuleFailed("the module returned False")
    if isinstance(value, numbers.Number):
        if bool(value):  # NaN is true
            raise ModuleFailed(f"the module returned {value!r} (only None, True and 0 are success)")
        return
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        raise ModuleFailed("the module's function is a generator: calling it runs nothing")
    text = repr(value)
    context.logger.info("returned %s", text if len(text) <= 200 else f"{text[:200]}… ({type(value).__name__})")


def _finish(function: Callable[..., Any], arguments: list[Any], keywords: dict[str, Any]) -> Any:
    """Call; run what ``async def`` gives; turn ``sys.exit`` into a return value."""
    try:
        result = function(*arguments, **keywords)
        if inspect.iscoroutine(result):
            return asyncio.run(result)
        return result
    except SystemExit as leaving:
        if leaving.code in (None, 0):
            return None
        raise ModuleFailed(f"the module called sys.exit({leaving.code!r})") from leaving


def _plain_number(value: Any) -> Any:
    """Return a NumPy scalar (or array without dimension) as the Python value it stands for."""
    if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
        return value.item()
    return value


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):  # written in C without a signature
        return []


def _wants_context(parameter: inspect.Parameter) -> bool:
    return parameter.annotation is ModuleContext or _annotation_text(parameter).endswith("ModuleContext")


def _wants_dictionary(parameter: inspect.Parameter) -> bool:
    """By its name, or by an annotation such as ``dict``, ``Dict[str, Any]``, ``Mapping``, ``Optional[dict]``."""
    text = _annotation_text(parameter)
    for wrapping in ("Optional[", "Union["):
        text = text.removeprefix(wrapping)
    return parameter.name in PARAMETER_NAMES or text.partition("[")[0].split("|")[0].strip(" ]") in {
        "dict",
        "Dict",
        "Mapping",
        "MutableMapping",
    }


def _annotation_text(parameter: inspect.Parameter) -> str:
    """The annotation as it would be written, without the module in front of its first name."""
    if parameter.annotation is _EMPTY:
        return ""
    text = parameter.annotation
    text = (text if isinstance(text, str) else inspect.formatannotation(text)).strip(" \"'")
    for package in ("typing.", "collections.abc.", "t."):
        text = text.replace(package, "")
    return text


def _arguments(
    function: Callable[..., Any], context: ModuleContext, step: str, stack: ExitStack, *, ready_made: bool
) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and keyword arguments for a function whose entry gives none."""
    parameters = _parameters(function)
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    full = context.full_parameters
    values: dict[str, Any] = {}
    if [p.name for p in named] in (["param_source", "overrides"], ["param_file", "overrides"]):
        values = {named[0].name: full, "overrides": None}
    elif len(named) == 1:
        values = {named[0].name: _single(named[0], context, step, stack, ready_made=ready_made)}
    else:
        values = {p.name: _by_name(p, context, step, stack) for p in named}
    arguments = [values[p.name] for p in named if p.kind in _POSITIONAL]
    keywords = {p.name: values[p.name] for p in named if p.kind not in _POSITIONAL}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        keywords.update({name: value for name, value in full.items() if name not in values})
    return arguments, keywords


def _single(parameter: inspect.Parameter, context: ModuleContext, step: str, stack: ExitStack, *, ready_made: bool) -> Any:
    if _wants_context(parameter):
        return context
    if _wants_dictionary(parameter):
        return context.full_parameters
    if ready_made or parameter.name in FILE_NAMES:
        path = stack.enter_context(context.parameter_file(step))
        # Python 3.13 says pathlib._local.Path.
        wants_path = _annotation_text(parameter).partition("|")[0].strip().rpartition(".")[2] == "Path"
        return path if wants_path else str(path)
    if parameter.name == "output_path" or parameter.name in context.full_parameters:
        return _by_name(parameter, context, step, stack)
    return context.full_parameters if parameter.default is _EMPTY else parameter.default


def _by_name(parameter: inspect.Parameter, context: ModuleContext, step: str, stack: ExitStack) -> Any:
    if _wants_context(parameter):
        return context
    full = context.full_parameters
    if parameter.name == "output_path" and (text := context.parameters.get("output_path") or full.get("output_filename")):
        return _resolved("output_path", text, context)
    if parameter.name in full:
        return full[parameter.name]
    if parameter.default is not _EMPTY:
        return parameter.default
    if parameter.name in PARAMETER_NAMES:
        return full
    return str(stack.enter_context(context.parameter_file(step))) if parameter.name in FILE_NAMES else None


def _resolved(name: str, value: Any, context: ModuleContext) -> Any:
    """Put a relative value of ``…_path`` and ``…_file`` into the session folder; URLs and drive paths stay."""
    if not (name.endswith(("_path", "_file")) and isinstance(value, (str, Path)) and str(value)):
        return value
    text = str(value)
    if "://" in text or PureWindowsPath(text).drive or text.startswith("~"):
        return value
    if PurePosixPath(text.replace("\\", "/")).is_absolute():
        return value if isinstance(value, Path) else str(native_path(text))
    resolved = context.path(text)
    return resolved if isinstance(value, Path) else str(resolved)
