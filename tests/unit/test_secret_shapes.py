"""What looks like a secret is hidden in every place that leaves the rig or is written as JSON."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openscope.issues.privacy import Machine, Privacy
from pytest_openscope.issues.report import build_report
from pytest_openscope.log import mask_json, mask_text, weak_secret_keys
from pytest_openscope.log.masking import ExactMasker
from pytest_openscope.log.secret_shapes import TOKENS, WEBHOOKS
from pytest_openscope.records import (
    AcquisitionFacts,
    Failure,
    Outcome,
    Phase,
    SessionRecord,
    StepRecord,
    debug_state,
    end_state,
)

HEX, MIXED = "0123456789abcdef" * 5, "aB3dE5gH7jK9mN1pQ3rS5tU7vW9xY1z" * 4
#: One token of each service of the catalogue, in its own shape.
EXAMPLES = {
    "GitHub": f"ghp_{MIXED[:36]}",
    "GitLab": f"glpat-{MIXED[:20]}",
    "Bitbucket and Atlassian": f"ATATT3{MIXED[:60]}",
    "Slack": f"xoxb-{MIXED[:40]}",
    "OpenAI and Anthropic": f"sk-{MIXED[:48]}",
    "Stripe": f"sk_live_{MIXED[:24]}",
    "Google": f"AIza{MIXED[:35]}",
    "AWS": "AKIAQWERTYUIOP234567",
    "package index PyPI": f"pypi-AgEIcHlwaS5vcmc{MIXED[:60]}",
    "package index npm": f"npm_{MIXED[:36]}",
    "package index RubyGems": f"rubygems_{HEX[:48]}",
    "package index crates": f"cio{MIXED[:32]}",
    "package index NuGet": f"oy2{HEX[:43]}",
    "Docker Hub": f"dckr_pat_{MIXED[:27]}",
    "Hugging Face": f"hf_{MIXED[:34]}",
    "SendGrid": f"SG.{MIXED[:22]}.{MIXED[:43]}",
    "Mailgun": f"key-{HEX[:32]}",
    "Twilio": f"SK{HEX[:32]}",
    "Databricks": f"dapi{HEX[:32]}",
    "DigitalOcean": f"dop_v1_{HEX[:64]}",
    "Grafana": f"glsa_{MIXED[:40]}",
    "HashiCorp Vault": f"hvs.{MIXED[:90]}",
    "Notion": f"ntn_{MIXED[:46]}",
    "Tailscale": f"tskey-auth-{MIXED[:30]}",
    "age": f"AGE-SECRET-KEY-1{MIXED[:58].upper()}",
    "Telegram": f"123456789:AA{MIXED[:33]}",
}
HOOKS = {
    "Slack": "https://hooks.slack.com/services/T0/B0/{}",
    "Discord": "https://discord.com/api/webhooks/123456789/{}",
    "Microsoft Teams": "https://lab.webhook.office.com/webhookb2/{}",
    "Google Chat": "https://chat.googleapis.com/v1/spaces/AAA4/messages?x={}",
    "Mattermost": "https://chat.lab.org/hooks/abcdefghijklmnopqrstuvwx12",
    "Zapier": "https://hooks.zapier.com/hooks/catch/1/{}",
    "IFTTT": "https://maker.ifttt.com/trigger/done/with/key/{}",
    "Telegram": "https://api.telegram.org/bot123456789:{}",
}
SECRET = "Tr0ub4dor-and-3"
#: Text, and the secret in it.
TEXTS = {
    **{name: (f"login with {token} failed", token) for name, token in EXAMPLES.items()},
    **{f"hook {name}": (url.format(MIXED[:40]), url.format(MIXED[:40])[-26:]) for name, url in HOOKS.items()},
    "option": (f"recorder --password {SECRET} --verbose", SECRET),
    "option with =": (f"recorder --api-key={SECRET}", SECRET),
    "option quoted": (f'recorder --token "{SECRET}"', SECRET),
    "short option": (f"mysql -u lab -p {SECRET} experiments", SECRET),
    "sshpass": (f"sshpass -p {SECRET} ssh rig", SECRET),
    "printed list": (str(subprocess.CalledProcessError(1, ["recorder", "--password", SECRET, "x"])), SECRET),
    "printed list, short": (str(subprocess.CalledProcessError(1, ["recorder", "-p", SECRET])), SECRET),
    "JSON list": (json.dumps(["recorder", "--token", SECRET]), SECRET),
    "JSON within JSON": (json.dumps(json.dumps(["recorder", "--token", SECRET])), SECRET),
    "Azure": (f"https://lab.blob.core.windows.net/a/b?sv=2024&sig={MIXED[:40]}%3D&se=1", MIXED[:40]),
    "AWS signed": (f"https://b.s3.amazonaws.com/k?X-Amz-Credential=AK/1&X-Amz-Signature={HEX[:64]}", HEX[:64]),
    "Google signed": (f"https://storage.googleapis.com/b/k?X-Goog-Signature={HEX[:64]}", HEX[:64]),
    "index": (f"pip install --index-url https://__token__:{SECRET}@pkg.lab.org/simple x", SECRET),
}


@pytest.mark.parametrize("name", TEXTS)
def test_it_is_hidden_wherever_it_leaves_the_rig_or_is_written_as_json(name: str, tmp_path: Path) -> None:
    text, secret = TEXTS[name]
    assert secret in text or name.startswith("hook")
    failure = Failure("exception", Outcome.FAILED, text, traceback=text, phase=Phase.ACQUISITION, step="s")
    record = SessionRecord(
        "u", "m", "u", "r", "2026-01-01T00:00:00+00:00", failures=[failure], notes=[text], helper_failures=[text]
    )
    record.steps = [StepRecord("s", "t.py::s", Phase.ACQUISITION, skipped=text)]
    privacy = Privacy(machine=Machine())
    log = tmp_path / "launcher.log"
    log.write_text(text, encoding="utf-8")
    places: dict[str, Any] = {
        "text (log excerpt, title, body)": privacy.always(text),
        "private text": privacy.private(f"before {text} after"),
        "parameters": mask_json({"script_arguments": ["x", text], "deep": {"list": [{"note": text}]}}),
        "end_state.json": end_state(record),
        "debug_state.json": debug_state(record, log=log),
    }
    for place, content in places.items():
        assert secret not in json.dumps(content), place
        assert "***" in json.dumps(content), place


@pytest.mark.parametrize("name", TEXTS)
def test_a_report_as_it_is_sent_holds_none(name: str, tmp_path: Path) -> None:
    """Title, body with log excerpt, and the copy that stays in the session folder, which is the body."""
    text, secret = TEXTS[name]
    metadata = tmp_path / "launcher_metadata"
    metadata.mkdir()
    (metadata / "launcher.log").write_text(f"2026-01-01T00:00:00.000000+00:00 ERROR - - lab {text}\n", encoding="utf-8")
    facts = AcquisitionFacts("camera", ["camera", text], returncode=1, stderr_tail=[text])
    failure = Failure(
        "exception", Outcome.FAILED, text, traceback=f"Error: {text}", phase=Phase.ACQUISITION, step="s", acquisition=facts
    )
    record = SessionRecord("u", "m", "u", "r", "2026-01-01T00:00:00+00:00", failures=[failure])
    state = debug_state(record, log=metadata / "launcher.log", parameters={"arguments": [text]})
    settings = {"enabled": True, "repo": "a/b", "launcher_log_mode": "full", "report_on": ["exception"]}
    session = {"rig_id": "rig-a"}
    (report,) = build_report(state, settings, facts=session, session_folder=tmp_path, environ={})
    assert secret not in json.dumps(report)
    assert "***" in json.dumps(report)


def test_every_shape_of_the_catalogue_has_an_example() -> None:
    assert list(EXAMPLES) == list(TOKENS)
    assert list(HOOKS) == list(WEBHOOKS)


@pytest.mark.parametrize("option", ["--password", "--token", "--api-key", "-p"])
def test_the_next_argument_in_a_list_is_hidden(option: str) -> None:
    parameters = {"script_arguments": ["--out", "a.csv", option, SECRET, "--verbose"]}
    assert mask_json(parameters) == {"script_arguments": ["--out", "a.csv", option, "***", "--verbose"]}


@pytest.mark.parametrize(
    "text",
    [
        "Bonsai.exe main.bonsai --start --no-editor -p Gain=3 -p RootFolder=/data/m1",
        "python -m pytest -p no:cacheprovider -p xdist",
        "mkdir -p data",
        "ssh -p 2222 rig",
        "docker run -p 80:80 lab",
        "tool --token-env LAB_TOKEN --password-file secret.txt --verbose",
        "tool --token $LAB_TOKEN --password {db_password}",
        "tool --token --verbose",
        "https://lab.org/x?page=2&name=mouse7&signal=10",
        "cionx hf_short key-lock npm_run oy2 SKETCH dapi",
        "frame=   60 fps= 41 q=-1.0 Lsize=      35KiB time=00:00:02.00 bitrate= 143.5kbits/s",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask_text(text) == text


@given(st.lists(st.sampled_from(list(TEXTS)), min_size=1, max_size=4), st.text(max_size=8))
def test_masking_is_idempotent_in_any_mixture(names: list[str], between: str) -> None:
    once = mask_text(f" {between} ".join(TEXTS[name][0] for name in names))
    assert mask_text(once) == once


# -- weak secrets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["passed", "test", "INFO", "acquisition", "laser"])
def test_a_weak_secret_leaves_the_programs_own_words(secret: str, tmp_path: Path) -> None:
    record = SessionRecord("u", "m", "u", "r", "2026-01-01T00:00:00+00:00", notes=["by hand"])
    record.stopped = record.started
    record.steps = [StepRecord("laser", "test_laser.py::laser", Phase.ACQUISITION, outcome=Outcome.PASSED)]
    assert end_state(record, secrets=[secret]) == end_state(record)
    assert mask_json({"laser": {"outcome": "passed"}, "password": secret}, [secret]) == {
        "laser": {"outcome": "passed"},
        "password": "***",
    }


def test_an_ordinary_word_is_still_hidden_in_free_text() -> None:
    masker = ExactMasker(["laser", "passed"])
    assert masker("the password is laser") == "the password is ***"
    assert masker("outcome: passed") == "outcome: passed"
    assert masker.names("test_laser") == "test_laser"
    assert ExactMasker(["Tr0ub4dor"]).names("test[Tr0ub4dor]") == "test[***]"


def test_the_keys_of_weak_secrets_are_told() -> None:
    values = {"db": {"password": "passed", "user": "laser"}, "api_token": "Tr0ub4dor-and-3", "list": [{"secret": "laser"}]}
    assert list(weak_secret_keys(values)) == ["db.password", "list.secret"]
