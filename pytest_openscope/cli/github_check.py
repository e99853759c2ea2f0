"""``openscope github-check``: tells whether failure reports would arrive."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import GithubIssueSettings
from ..issues import ERROR, check_access
from .common import EXIT_FOUND, EXIT_OK, RigConfig, read_configuration

_DEFAULTS = GithubIssueSettings()


def github_check(
    rig_config: RigConfig = None,
    params: Annotated[list[Path] | None, typer.Option(help="parameter file with a github_issue block", metavar="FILE")] = None,
    repo: Annotated[str | None, typer.Option(help="owner/name, instead of a configuration")] = None,
    token_env: Annotated[
        str | None, typer.Option(help=f"environment variable that holds the token (default {_DEFAULTS.token_env})")
    ] = None,
    api_base_url: Annotated[str | None, typer.Option(help=f"default {_DEFAULTS.api_base_url}")] = None,
    label: Annotated[list[str] | None, typer.Option(help="label to look for (default auto-report)")] = None,
    json_: Annotated[bool, typer.Option("--json", help="print the findings as JSON")] = False,
) -> int:
    """Check token, repository, permission and labels; creates nothing.

    Exit code 0: reports would arrive; 1: they would not; 4: wrong options.
    """
    values: dict[str, Any] = {}
    if rig_config is not None or not repo:
        block = read_configuration(rig_config, params or ()).settings.github_issue
        if block is None and not repo:
            print("no github_issue block is configured; nothing would be reported", file=sys.stderr)
            return EXIT_FOUND
        values = block.as_json() if block is not None else {}
    given = {"repo": repo, "token_env": token_env, "api_base_url": api_base_url, "labels": label}
    values.update({key: value for key, value in given.items() if value})
    settings = GithubIssueSettings.of(values)
    findings = check_access(settings, os.environ.get(settings.token_env, ""))
    if json_:
        print(json.dumps(findings, indent=2))
    else:
        for item in findings:
            print(f"{item['level'].upper():8} {item['text']}")
    return EXIT_FOUND if any(item["level"] == ERROR for item in findings) else EXIT_OK
