"""What must not leave a rig does not, in whatever spelling."""

from __future__ import annotations

import json
import os
import sys
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openscope.issues.privacy import Machine, Privacy

MACHINE = Machine(("/home/jqualm", "C:\\Users\\jqualm"), ("jqualm",), ("ALLEN-RIG-417",))


def privacy(subject: str = "366122", user: str = "jane.doe", session: str = "366122_2026-01-02_03-04-05") -> Privacy:
    return Privacy(
        secrets={"pa$$w0rd", "ghp_abcdefgh12345678"},
        subject_id=subject,
        user_id=user,
        session_uuid=session,
        machine=MACHINE,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("token ghp_abcdefgh12345678 here", "token *** here"),
        ("another ghp_ZZZZZZZZ99999999", "another ***"),
        ("https://jo:secret@host.x/y", "https://jo:***@host.x/y"),
        ("the pa$$w0rd is", "the *** is"),
        ("/home/jqualm/data/a.bin", "~/data/a.bin"),
        ("/home/somebody/data/a.bin", "~/data/a.bin"),
        ("C:\\Users\\jqualm\\rig.py", "~\\rig.py"),
        ("c:/users/other person/rig.py", "~/rig.py"),
        ("C:\\Users\\Public\\x", "C:\\Users\\Public\\x"),
        ("D:\\data\\jqualm\\x", "D:\\data\\<name>\\x"),
        ("/tmp/pytest-of-jqualm/x", "/tmp/pytest-of-<name>/x"),
        ("jqualm is no path, jqualms/x neither", "jqualm is no path, jqualms/x neither"),
        ("D:\\data\\2026_jqualm.log", "D:\\data\\2026_<name>.log"),
        ("on allen-rig-417: x", "on <host>: x"),
        ("\\\\ALLEN-RIG-417\\c$\\x", "\\\\<host>\\c$\\x"),
        ("nothing 366122 private", "nothing 366122 private"),
    ],
)
def test_always(text: str, expected: str) -> None:
    assert privacy().always(text) == expected


@pytest.mark.parametrize(
    "spell", [str, lambda path: json.dumps(path)[1:-1], lambda path: path.replace("\\", "/"), quote, str.upper]
)
@pytest.mark.parametrize("path", ["C:\\Users\\jqualm\\a", "/home/jqualm/a"])
def test_homes_in_every_spelling(spell: object, path: str) -> None:
    assert "jqualm" not in privacy().always(f"x {spell(path)} y").lower()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mouse 366122 of jane.doe", "mouse <subject> of <user>"),
        ("/data/366122_2026-01-02_03-04-05/x", "/data/<session>/x"),
        ("mouse366122 3661220", "mouse<subject> 3661220"),
        ("JANE.DOE", "<user>"),
        ("def test_jane_doe(): # Jane Doe", "def test_<user>(): # <user>"),
        ('{"subject_id": "366122"}', '{"subject_id": "<subject>"}'),
    ],
)
def test_private(text: str, expected: str) -> None:
    assert privacy().private(text) == expected


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_subject_is_gone_between_any_words(before: str, after: str) -> None:
    masked = privacy("mouse-Zx81").private(f"{before} mouse-Zx81_{after}")
    assert "mouse-zx81" not in masked.lower()


def test_short_names_do_not_tear_text_apart() -> None:
    mask = privacy("1", "al", "")
    assert mask.private("allow 1.5 of 21; al and 1") == "allow 1.5 of 21; <user> and <subject>"


def test_a_rig_named_after_its_host_gets_a_pseudonym() -> None:
    mask = privacy()
    assert mask.rig_name("rig-a") == "rig-a"
    assert mask.rig_name("ALLEN-RIG-417").startswith("rig-")
    assert mask.rig_name("ALLEN-RIG-417") == mask.rig_name("allen-rig-417") != mask.rig_name("ALLEN-RIG-417-b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/root/x", "~/x"),
        ('File "/root/x"', 'File "~/x"'),
        ("file:///root/x", "file://~/x"),
        ("/data/root/x", "/data/root/x"),
        ("/rooted/x", "/rooted/x"),
    ],
)
def test_a_short_home_is_masked_at_the_beginning_of_a_path_only(text: str, expected: str) -> None:
    assert Privacy(machine=Machine(("/root",), (), ())).always(text) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no password file")
def test_the_accounts_home_is_known_though_HOME_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: N802
    import pwd

    account = pwd.getpwuid(os.getuid())
    monkeypatch.setenv("HOME", "/srv/service")
    here = Machine.here()
    assert "/srv/service" in here.homes
    assert account.pw_name in here.user_names
    assert len(account.pw_dir) <= 3 or account.pw_dir in here.homes


def test_masking_a_name_takes_linear_time() -> None:
    began = time.process_time()
    privacy().always("jqualm. " * 10_000 + "jqualm." * 10_000 + "/x")
    assert time.process_time() - began < 2.0, "one that looks at the whole token each time takes far longer"


def test_this_machine_is_known() -> None:
    here = Machine.here()
    assert isinstance(here.homes, tuple)
    Privacy().private("anything")
