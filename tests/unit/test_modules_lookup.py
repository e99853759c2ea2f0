"""Steps that others ship: which one a name means, and that it runs as its author meant."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.config import PipelineEntry
from pytest_openscope.modules import ModuleContext, ModuleFailed, OwnSteps, check_entries, run_entry
from pytest_openscope.records.phases import Phase

_LAUNCHER = "openscope_experimental_launcher"


def entry_of(name: str, phase: Phase = Phase.PRE_ACQUISITION, /, **parameters: Any) -> Any:
    return PipelineEntry(
        name=name,
        phase=phase,
        module_path=name,
        module_parameters=parameters,
        where="day1.json: pre_acquisition_pipeline[0]",
    )


class Lab:
    """A folder with a rig file, one with installed packages, and a session."""

    def __init__(self, tmp_path: Path) -> None:
        self.rig, self.site, self.session = (tmp_path / name for name in ("rig", "site", "session"))
        for folder in (self.rig, self.site, self.session / "launcher_metadata"):
            folder.mkdir(parents=True)
        self.modules: dict[str, str] = {}
        self.context = ModuleContext({"subject_id": "m1"}, self.session)

    def write(self, path: str, text: str) -> Path:
        file = self.rig.parent / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def launcher(self, phase: str, name: str, text: str) -> None:
        """Install a step of the launcher, whose folders of steps are packages without ``__init__.py``."""
        self.write(f"site/{_LAUNCHER}/__init__.py", "__version__ = '0.2.57'\n")
        self.write(
            f"site/{_LAUNCHER}/utils/param_utils.py", "import json\ndef load(path): return json.loads(open(path).read())\n"
        )
        self.write(f"site/{_LAUNCHER}/{phase}/{name}.py", text)

    def entry_point(self, name: str, value: str) -> None:
        self.write("site/lab_steps-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: lab-steps\nVersion: 1.0\n")
        self.write("site/lab_steps-1.0.dist-info/entry_points.txt", f"[pytest_openscope.modules]\n{name} = {value}\n")

    @property
    def own(self) -> OwnSteps:
        return OwnSteps(self.modules, self.rig)

    def check(self, *names: str, **options: Any) -> list[str]:
        entries = [entry_of(name) for name in names]
        return [str(mistake) for mistake in check_entries(entries, own_steps=self.own, **options)]

    def run(self, name: str, phase: Phase = Phase.PRE_ACQUISITION, /, **parameters: Any) -> str:
        self.context.own_steps = self.own
        entry = entry_of(name, phase, **parameters)
        self.context.parameters = {**self.context.parameters, **parameters}
        run_entry(entry, self.context)
        return self.said

    @property
    def said(self) -> str:
        return (self.session / "said").read_text(encoding="utf-8")


SAY = "import pathlib\ndef {name}(params):\n    pathlib.Path(params['output_session_folder'], 'said').write_text({text!r})\n"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
    yield Lab(tmp_path)
    for name in set(sys.modules) - before:
        if name.startswith((_LAUNCHER, "lab_", "script_")):
            del sys.modules[name]
    sys.path_importer_cache.clear()


def test_the_order_rig_entry_point_ours_launcher(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lab.launcher("pre_acquisition", "wait_for_user_input", SAY.format(name="run_pre_acquisition", text="launcher"))
    with pytest.raises(ModuleFailed, match="nobody is there to answer"):  # ours comes before the launcher's
        lab.run("wait_for_user_input")
    lab.write("site/lab_steps.py", SAY.format(name="wait", text="entry point"))
    lab.entry_point("wait_for_user_input", "lab_steps:wait")
    assert lab.run("wait_for_user_input") == "entry point"
    assert "wait_for_user_input is a step of entry point of lab-steps" in caplog.text
    lab.write("rig/steps/wait.py", SAY.format(name="run", text="rig"))
    lab.modules["wait_for_user_input"] = "steps/wait.py"
    assert lab.run("wait_for_user_input") == "rig"
    assert lab.check("wait_for_user_input") == []


@pytest.mark.parametrize("slash", ["/", "\\"])
def test_a_file_beside_the_rig_finds_its_neighbours_and_keeps_its_state(lab: Lab, slash: str) -> None:
    lab.write("rig/steps/lab_helper.py", "TEXT = 'neighbour'")
    text = "import lab_helper, pathlib\nCALLS = []\ndef go(output_session_folder, seed=3, what=None):\n    CALLS.append(1)\n"
    text += "    pathlib.Path(output_session_folder, 'said').write_text(f'{lab_helper.TEXT} {len(CALLS)} {seed} {what}')\n"
    lab.write("rig/steps/lab_go.py", text)
    lab.modules["go"] = f"steps{slash}lab_go.py:go"
    assert lab.run("go", seed=5) == "neighbour 1 5 None"
    assert lab.run("go", what="x") == "neighbour 2 5 x"
    assert "lab_helper" not in sys.modules


def test_a_module_beside_the_rig_and_a_failure_of_it(lab: Lab) -> None:
    lab.write("rig/lab_package/__init__.py", "")
    lab.write("rig/lab_package/steps.py", "class Steps:\n    @staticmethod\n    def bad(params): return False\n")
    lab.modules["bad"] = "lab_package.steps:Steps.bad"
    assert lab.check("bad") == []
    with pytest.raises(ModuleFailed, match="returned False"):
        lab.run("bad")


def test_what_is_wrong_with_a_rigs_own_step_is_told_before_the_session(lab: Lab) -> None:
    lab.write("rig/steps/other.py", "def runs(): pass")
    lab.write("rig/steps/broken.py", "def run(:")
    lab.write("rig/lab_raising/__init__.py", "1 / 0")
    lab.modules = {
        "gone": "steps/gone.py",
        "other": "steps/other.py",
        "broken": "steps/broken.py:run",
        "missing": "lab_nowhere.steps:run",
        "raising": "lab_raising.steps",
    }
    for dry_run in (False, True):
        texts = lab.check(*lab.modules, "brokn", dry_run=dry_run)
        assert [part for part, text in zip(lab.modules, texts, strict=False) if f": {part}: " in text] == [*lab.modules]
        assert "there is no" in texts[0]
        assert "has no function run_pre_acquisition or run" in texts[1]
        assert "line 1" in texts[2]
        assert "No module named 'lab_nowhere'" in texts[3]
        assert "ZeroDivisionError" in texts[4]
        assert "mend modules of the rig file: lab_raising.steps" in texts[4]
        assert "did you mean 'broken'?" in texts[5]
    with pytest.raises(ModuleFailed, match="has no function"):
        lab.run("other")


def test_modules_of_the_launcher_run_as_they_are(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    text = f"import json, logging, pathlib\nfrom {_LAUNCHER}.utils import param_utils\n"
    text += "def run_post_acquisition(param_file):\n    params = param_utils.load(param_file)\n    logging.info('annotating')\n"
    text += (
        "    pathlib.Path(params['output_session_folder'], 'said').write_text(json.dumps(params))\n    return params['code']\n"
    )
    lab.launcher("post_acquisition", "slap2_meta_annotator", text)
    post = Phase.POST_ACQUISITION
    said = json.loads(lab.run("slap2_meta_annotator", post, code=0, source_dir="x"))
    assert (said["subject_id"], said["source_dir"]) == ("m1", "x")
    assert "annotating" in caplog.messages
    with pytest.raises(ModuleFailed, match="returned 1"):
        lab.run("slap2_meta_annotator", post, code=1)
    # In the other phase the launcher has none of that name.
    assert "there is no step 'slap2_meta_annotator'" in lab.check("slap2_meta_annotator")[0]
    with pytest.raises(ModuleFailed, match="there is no step"):
        lab.run("slap2_meta_annotator")


def test_two_arguments_and_packages_of_the_launcher(lab: Lab) -> None:
    text = "import pathlib\ndef run_pre_acquisition(param_source, overrides=None):\n"
    text += "    said = f'{type(param_source).__name__} {overrides}'\n"
    text += "    pathlib.Path(param_source['output_session_folder'], 'said').write_text(said)\n"
    lab.launcher("pre_acquisition", "two/__init__", text)
    lab.launcher("pre_acquisition", "two", "raise RuntimeError('the package comes first, as for Python')")
    assert lab.run("two") == "dict None"


def test_a_dry_run_leaves_the_launchers_modules_out_and_runs_the_rigs_own(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lab.launcher("pre_acquisition", "slap2_thing", "def run(params): 1 / 0\n")
    lab.write(
        "rig/own.py",
        "import pathlib\ndef run(dry_run, session_folder): pathlib.Path(session_folder, 'said').write_text(str(dry_run))",
    )
    lab.modules["own"] = "own.py"
    lab.context.dry_run = True
    assert lab.check("slap2_thing", "own", dry_run=True) == []
    assert lab.run("own") == "True"
    lab.run("slap2_thing")
    assert f"dry run: would run 'slap2_thing' of the installed {_LAUNCHER}" in caplog.messages
    lab.write("session/said", "untouched")
    assert lab.run("own", simulate_in_dry_run=True) == "untouched"


def test_names_that_are_no_names_find_nothing(lab: Lab) -> None:
    lab.launcher("pre_acquisition", "good", "def run(params): pass\n")
    assert lab.check("good") == []
    for name in ("../good", "good.py", "", "pre_acquisition/good"):
        assert len(lab.check(name)) == 1, name
