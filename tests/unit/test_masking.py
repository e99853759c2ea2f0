"""Secrets vanish, everything else stays."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_openscope.log.masking import _OWN_WORDS, MASK, ExactMasker, collect_secrets, is_secret_key, mask_json, mask_text

_SECRET = """token password passwd passphrase secret api_key apikey apiKey API-KEY private_key credential credentials auth
GITHUB_TOKEN db_password userPassword aws_secret_access_key AuthToken access_token smtp_pass token_v2 github_pat clientSecret
X-Api-Key authorization cookie encryption_key jwt tokens"""
_PUBLIC = """token_env session_key_param session_sync_session_key session_sync_key_param keyboard monkey author key
authentication_mode low_pass_hz max_tokens password_file tokenizer secretary compass bypass session_sync_allow_bypass
pattern path token_url authority github_issue subject_id turkey pass_count COM_port patience api_base_url"""


@pytest.mark.parametrize("key", _SECRET.split())
def test_secret_keys(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize("key", _PUBLIC.split())
def test_other_keys(key: str) -> None:
    assert not is_secret_key(key)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("pushed with ghp_abcdefghijklmnop1234", "ghp_"),
        ("gho_abcdefghijklmnop1234", "gho_"),
        ("ghs_abcdefghijklmnop1234 ghu_abcdefghijklmnop1234 ghr_abcdefghijklmnop1234", "abcdef"),
        ("github_pat_11ABCDEFG0123456789_abcdefghijklmnopqrstuvwxyz", "11ABC"),
        ("Authorization: Bearer abc.def", "abc.def"),
        ("authorization: token abcdef", "abcdef"),
        ("{'Authorization': 'Basic dXNlcjpwYXNz'}", "dXNl"),
        ("cloning https://bob:pa@ss@host/x.git", "pa@ss"),
        ("mqtt://sensor:hunter2@10.0.0.1", "hunter2"),
        ("Max retries exceeded with url: /x?access_token=abc123def (Caused by", "abc123"),
        ("url=https://host/x?password=hunter2", "hunter2"),
        ("where:https://host/x?api_key='hunter2'", "hunter2"),
        ("https://0123456789abcdef0123@github.com/x", "0123456789abcdef"),
        ("password=hunter2 user=bob", "hunter2"),
        ("--token=hunter2", "hunter2"),
        ("api_key: 'hunter 2'", "hunter"),
        ('{"password": "hunter\\"2"}', "hunter"),
        (json.dumps({"inner": json.dumps({"password": "hunter2"})}), "hunter2"),
        ("DB_PASSWORD=ab(c)d", "ab(c"),
        ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF", "eyJ"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----", "MIIabc"),
        ("-----BEGIN PRIVATE KEY-----\nMIIabc", "MIIabc"),
        ("GET /x?access_token=hunter2&y=1", "hunter2"),
        ("xoxb-1234567890-abcdefghij", "1234567890"),
    ],
)
def test_patterns(text: str, hidden: str) -> None:
    masked = mask_text(text)
    assert hidden not in masked
    assert MASK in masked
    assert mask_text(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "token_env: GITHUB_TOKEN",
        "C:/data/session https://user@host/path",
        "12:30:00 the keyboard: monkey",
        "token: ${GITHUB_TOKEN}",
        "password: None",
        "assert token == expected",
        "session_sync_key_param: subject_id",
        "10.0.0.1:8080@home",
    ],
)
def test_harmless_text_stays(text: str) -> None:
    assert mask_text(text) == text


def test_collected_from_configuration() -> None:
    environ = {"T": "from-environment", "API_TOKEN": "api-value", "HOME": "/home/bob"}
    value = {
        "token": "${T}",
        "list": [{"password": "in-a-list"}],
        "credentials": {"user": "bobby", "key": "inner-key"},
        "url": "https://alice:url-pass@host/",
        "pin_password": 12345678,
        "command": ["curl", "$API_TOKEN"],
        "auth": True,
        "secret": None,
        "folder": "$HOME/data",
        "token_env": "GITHUB_ISSUE_TOKEN",
        "short_secret": "abc",
        "year_secret": "2026",
    }
    expected = {"from-environment", "in-a-list", "inner-key", "url-pass", "12345678", "api-value"}
    assert collect_secrets(value, environ) == expected


def test_lines_of_a_long_secret_are_secrets() -> None:
    key = "-----BEGIN X-----\nabcdefghijklmnopqrstuvwxyz\n-----END X-----"
    masker = ExactMasker(collect_secrets({"private_key": key}))
    assert masker("| abcdefghijklmnopqrstuvwxyz") == "| ***"


def test_exact_masker_returns_the_same_object() -> None:
    text = "nothing to hide " * 5
    assert ExactMasker(["hunter2"])(text) is text
    assert ExactMasker()(text) is text
    assert not ExactMasker(["abc"])


def test_exact_masker_knows_escaped_spellings() -> None:
    masker = ExactMasker(['pa"ss\\wörd/x'])
    for text in (json.dumps('pa"ss\\wörd/x'), repr('pa"ss\\wörd/x'), "?p=pa%22ss%5Cw%C3%B6rd%2Fx"):
        assert "ss" not in masker(text)


def test_exact_masker_takes_the_longest_first() -> None:
    assert ExactMasker(["hunter", "hunter22"])("hunter22 hunter") == "*** ***"


def test_mask_json_keeps_what_tells_without_betraying() -> None:
    value = {"token": "${T}", "password": None, "auth": False, "api_key": "x", "n": 5, "nested": [{"secret": [1, "b"]}]}
    assert mask_json(value) == {
        "token": "${T}",
        "password": None,
        "auth": False,
        "api_key": MASK,
        "n": 5,
        "nested": [{"secret": [MASK, MASK]}],
    }


secrets_strategy = st.text(st.characters(exclude_categories=["Cs"]), min_size=6, max_size=30).filter(
    lambda text: len(text.strip()) >= 6 and "*" not in text and text.strip().lower() not in ("string", *_OWN_WORDS)
)


@given(secrets_strategy, st.text(max_size=40), st.text(max_size=40))
def test_no_known_secret_survives(secret: str, before: str, after: str) -> None:
    assert secret not in mask_text(before + secret + after, [secret]).replace(MASK, "\x00***\x00")
    assert secret not in ExactMasker([secret])(before + " " + secret + " " + after)


@given(secrets_strategy)
def test_a_collected_secret_is_masked_in_json(secret: str) -> None:
    found = collect_secrets({"password": secret})
    text = json.dumps(mask_json({"password": secret, "note": f"it is <{secret}>"}, found))
    if found:
        # A word that is a part of the key itself ("passwo") stays there: keys are names.
        assert json.dumps(secret.strip())[1:-1] not in text.replace('"password"', "")


@given(st.text(max_size=300))
def test_masking_twice_changes_nothing_more(text: str) -> None:
    once = mask_text(text)
    assert mask_text(once) == once


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_mask_json_is_json(value: object) -> None:
    json.dumps(mask_json(value))


UNITS = ["a", "token=", "https://a:", "-----BEGIN PRIVATE KEY-----", "eyJa.", "x: '", "password ", "aa=", "aa:token"]
OPTIONS = ["-p ", "--token ", "?sig=", "ghp_", "hooks.slack.com/services/"]


@pytest.mark.parametrize("unit", [*UNITS, *OPTIONS])
def test_time_is_linear(unit: str) -> None:
    times = []
    for size in (50_000, 200_000):
        start = time.perf_counter()
        mask_text(unit * (size // len(unit)))
        times.append(time.perf_counter() - start)
    assert times[1] < 12 * times[0] + 0.5


@settings(max_examples=30)
@given(st.lists(secrets_strategy, max_size=5), st.text(max_size=100))
def test_masker_leaves_other_text(secrets: list[str], text: str) -> None:
    masker = ExactMasker(secrets)
    if not any(part in text for secret in secrets for part in (secret, secret.strip())):
        assert masker(text) == text or any(char in text for char in "%\\")
