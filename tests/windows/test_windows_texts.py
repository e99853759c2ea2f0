"""What people write and read on Windows: code pages, consoles, and files as Notepad saves them.

The gate runs those that stand in ``gate.txt``; ``tests/windows/run --all`` runs all.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="scenes of Windows: tests/windows/run runs them under Wine")

#: é is in all code pages, µ in 437 and 1252, € in 1252, the rest in none but UTF-8.
SIGNS = "é µ € → \u4eba \U0001f42d"
MOJIBAKE = ("Ã©", "Â\xb5", "â‚¬", "├⌐", "â†’", "\ufffd")
FAILS = f"""
def test_acquire(acquisition):
    logging.getLogger("lab").info("{SIGNS}")
    print("{SIGNS}")
    acquisition.run(
        command=[sys.executable, "-c", "import sys; sys.exit('bad {SIGNS}')"], env={{"PYTHONIOENCODING": "utf-8"}}, name="é"
    )
"""


#: The gate runs the narrowest; with it goes all that the others take.
PAGES = ["cp437", pytest.param("cp1252", marks=pytest.mark.stress), pytest.param("utf-8", marks=pytest.mark.stress)]


@pytest.mark.parametrize("page", PAGES)
def test_a_failing_session_prints_in_every_code_page(make_lab: Any, page: str) -> None:
    lab = make_lab("Jos\u00e9")
    lab.steps(FAILS)
    shown = lab.run("-rA", PYTHONIOENCODING=page)
    assert shown.code == 1
    text = shown.printed.decode(page)
    assert "outcome: failed" in text
    assert "Jos\u00e9" in text, "the session folder"
    assert not any(wrong in text for wrong in MOJIBAKE)
    assert "UnicodeEncodeError" not in text
    assert "INTERNALERROR" not in text
    assert SIGNS in lab.messages
    assert f"bad {SIGNS}" in lab.messages
    assert lab.end_state["helper_failures"] == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_print_in_every_code_page(make_lab: Any, page: str) -> None:
    lab = make_lab("Jos\u00e9")
    lab.write("bad.yaml", "rig_id: é\noutput_root_folder: sessions\nmirror_finish_s: é→\n")
    for arguments in (["--help"], ["recover", "--rig-config", "rig.yaml"], ["history", "--help"]):
        done = lab.tool(*arguments, PYTHONIOENCODING=page)
        text = done.printed.decode(page)
        assert "Traceback" not in text, text
        assert not any(wrong in text for wrong in MOJIBAKE)
    refused = lab.run(rig="bad.yaml", PYTHONIOENCODING=page)
    assert refused.code == 4
    text = refused.printed.decode(page)
    assert "mirror_finish_s" in text
    assert ("é" in text, "\\u2192" in text or "→" in text or "?" in text) == (True, True)
    assert "UnicodeEncodeError" not in text
    assert not lab.folders


@pytest.mark.stress
def test_the_legacy_console_and_no_encoding_given(lab: Any) -> None:
    """Without a word on the encoding the ANSI code page counts, in a pipe as in a file."""
    lab.steps(FAILS)
    shown = lab.run(PYTHONLEGACYWINDOWSSTDIO="1", PYTHONLEGACYWINDOWSFSENCODING="1")
    assert shown.code == 1
    text = shown.printed.decode("mbcs" if sys.platform == "win32" else "utf-8")
    assert "outcome: failed" in text
    assert not any(wrong in text for wrong in MOJIBAKE[:-1])
    assert SIGNS in lab.messages


def notepad(text: str, encoding: str) -> bytes:
    """The bytes that Notepad saves: CRLF, and a mark in front for its Unicode encodings."""
    marks = {"utf-8-sig": b"", "utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}
    return marks.get(encoding, b"") + text.replace("\n", "\r\n").encode(encoding)


@pytest.mark.parametrize(
    "encoding",
    [
        pytest.param("utf-8", marks=pytest.mark.stress),
        "utf-8-sig",
        "utf-16-le",
        pytest.param("utf-16-be", marks=pytest.mark.stress),
    ],
)
def test_files_as_notepad_saves_them(lab: Any, encoding: str) -> None:
    rig = (lab.path / "rig.yaml").read_text(encoding="utf-8")
    (lab.path / "rig.yaml").write_bytes(notepad(rig, encoding))
    parameters = json.dumps({"subject_id": "m\u00e4use", "user_id": "ada", "pre_acquisition_pipeline": []}, ensure_ascii=False)
    (lab.path / "day.json").write_bytes(notepad(parameters, encoding))
    steps = "def test_acquire(experiment):\n    assert experiment.parameters['subject_id'] == 'm\u00e4use'\n"
    (lab.path / "test_experiment.py").write_bytes(notepad(steps, "utf-8-sig"))
    done = lab.run("--params", "day.json", ids=False)
    assert done.code == 0
    assert lab.end_state["outcome"] == "passed"
    assert lab.folder.name.startswith("m\u00e4use_")


def test_a_file_in_the_ansi_code_page_is_refused_with_the_remedy(lab: Any) -> None:
    (lab.path / "rig.yaml").write_bytes("rig_id: bänk\noutput_root_folder: sessions\n".encode("cp1252"))
    lab.steps("def test_acquire(): pass")
    refused = lab.run()
    assert refused.code == 4
    assert "UTF-8" in refused.text
    assert not lab.folders
