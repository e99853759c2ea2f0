"""The module contract: calling conventions, what is a failure, scripts side by side."""

from __future__ import annotations

import json
import logging
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openscope.config import PipelineEntry
from pytest_openscope.modules import ModuleContext, ModuleFailed, check_entries, run_entry
from pytest_openscope.modules.calls import judge
from pytest_openscope.modules.entries import simulates
from pytest_openscope.modules.ready_made import EXAMPLES, READY_MADE
from pytest_openscope.modules.scripts import ScriptNotFound, find_script
from pytest_openscope.records import Mistake
from pytest_openscope.records.phases import Phase


def make_entry(**given_keys: Any) -> PipelineEntry:
    """Return an entry as the configuration reads it."""
    own = given_keys.get("module_parameters", {})
    keys = {
        "name": "step",
        "module_type": "script_module",
        "module_path": "step.py",
        "function_args": own.get("function_args") or own.get("kwargs") or {},
        "where": "day1.json: pre_acquisition_pipeline[0]",
    }
    return PipelineEntry(**(keys | given_keys))


class Bench:
    """A repository, a session folder, and a way to run one script in them."""

    def __init__(self, tmp_path: Path) -> None:
        self.repository = tmp_path / "repository"
        self.repository.mkdir()
        self.session_folder = tmp_path / "session"
        (self.session_folder / "launcher_metadata").mkdir(parents=True)
        self.context = ModuleContext({"subject_id": "m1", "seed": 7}, self.session_folder, repository=self.repository)

    def script(self, text: str, name: str = "step.py") -> Path:
        path = self.repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def run(self, text: str, **entry: Any) -> Any:
        """Run a script; what its function put into the list ``SEEN`` comes back."""
        name = entry.get("module_path", "step.py")
        path = self.script("SEEN = []\n" + text, name)
        made = make_entry(**{"module_path": name, **entry})
        self.context.parameters = {**self.context.parameters, **made.module_parameters}
        run_entry(made, self.context)
        return self.context.scripts._scripts[path.resolve()].SEEN


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_no_argument(bench: Bench) -> None:
    assert bench.run("def run(): SEEN.append('ran')") == ["ran"]


@pytest.mark.parametrize("name", ["params", "parameters", "merged_params", "config", "cfg"])
def test_a_dictionary_by_its_name(bench: Bench, name: str) -> None:
    (seen,) = bench.run(f"def run({name}): SEEN.append({name})")
    assert seen["seed"] == 7
    assert seen["output_session_folder"] == seen["session_folder"] == str(bench.session_folder)
    assert seen["dry_run"] is False


@pytest.mark.parametrize(
    "annotation",
    [
        "dict",
        "'dict'",
        "dict[str, object]",
        "typing.Dict[str, typing.Any]",
        "typing.Mapping[str, int]",
        "typing.Optional[dict]",
        "dict | None",
    ],
)
@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
def test_a_dictionary_by_its_annotation(bench: Bench, annotation: str, future: str) -> None:
    text = f"import typing\ndef run(anything: {annotation}): SEEN.append(anything)"
    bench.script(future + "SEEN = []\n" + text)
    run_entry(make_entry(), bench.context)
    (module,) = bench.context.scripts._scripts.values()
    assert module.SEEN[0]["subject_id"] == "m1"


def test_the_path_of_a_json_file(bench: Bench) -> None:
    (path,) = bench.run("def run(param_file): SEEN.append(param_file)", name="make csv", module_parameters={"extra": 1})
    kept = bench.session_folder / "launcher_metadata" / "module_parameters" / "make csv.json"
    assert path == str(kept)
    data = json.loads(kept.read_text(encoding="utf-8"))
    assert (data["seed"], data["extra"], data["session_folder"]) == (7, 1, str(bench.session_folder))


def test_a_path_annotation_gets_a_path(bench: Bench) -> None:
    (path,) = bench.run("import pathlib\ndef run(param_file: pathlib.Path): SEEN.append(param_file)")
    assert isinstance(path, Path)


def test_secrets_reach_the_module_but_not_the_session_folder(bench: Bench) -> None:
    bench.context.parameters["api_token"] = "hunter2-hunter2"
    text = "import json\ndef run(param_file): SEEN.append((param_file, json.load(open(param_file))))"
    ((path, data),) = bench.run(text)
    assert data["api_token"] == "hunter2-hunter2"
    assert not Path(path).exists()
    for file in bench.session_folder.rglob("*.json"):
        assert "hunter2" not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("first", ["param_source", "param_file"])
def test_source_and_overrides(bench: Bench, first: str) -> None:
    ((source, overrides),) = bench.run(f"def run({first}, overrides): SEEN.append(({first}, overrides))")
    assert source["seed"] == 7
    assert overrides is None


def test_several_by_name_by_default_by_none(bench: Bench) -> None:
    (seen,) = bench.run(
        "def run(seed, nothing, speed=3, *, subject_id, late=4): SEEN.append((seed, nothing, speed, subject_id, late))"
    )
    assert seen == (7, None, 3, "m1", 4)


def test_a_single_argument_of_a_script_is_taken_by_name(bench: Bench) -> None:
    assert bench.run("def run(seed): SEEN.append(seed)") == [7]
    assert bench.run("def run(speed=3): SEEN.append(speed)", module_path="b.py") == [3]
    assert bench.run("def run(p): SEEN.append(p['seed'])", module_path="c.py") == [7]


def test_keywords_take_everything(bench: Bench) -> None:
    (seen,) = bench.run("def run(seed, **rest): SEEN.append((seed, rest))")
    assert seen[0] == 7
    assert seen[1]["subject_id"] == "m1"
    assert "seed" not in seen[1]


def test_the_context_by_its_annotation(bench: Bench) -> None:
    text = "from pytest_openscope import ModuleContext\ndef run(it: ModuleContext, seed): SEEN.append((it, seed))"
    assert bench.run(text) == [(bench.context, 7)]


def test_the_phase_names_the_function(bench: Bench) -> None:
    text = "def run(): SEEN.append('run')\ndef run_post_acquisition(): SEEN.append('post')"
    assert bench.run(text) == ["run"]
    assert bench.run(text, phase=Phase.POST_ACQUISITION, module_path="b.py") == ["post"]


def test_a_named_function_with_arguments(bench: Bench) -> None:
    parameters = {
        "function": "make_csv",
        "function_args": {
            "seed": 42,
            "table_path": "out\\a.csv",
            "log_file": "/tmp/x",
            "drive_path": "C:\\a.csv",
            "url_path": "http://x/y",
        },
        "output_filename": "stimulus.csv",
    }
    text = "def make_csv(seed, table_path, log_file, drive_path, url_path, output_path): SEEN.append(locals())"
    (seen,) = bench.run(text, module_parameters=parameters, function="make_csv")
    assert seen["seed"] == 42
    assert seen["table_path"] == str(bench.session_folder / "out" / "a.csv")
    assert (seen["drive_path"], seen["url_path"]) == ("C:\\a.csv", "http://x/y")
    assert seen["output_path"] == str(bench.session_folder / "stimulus.csv")


def test_a_given_output_path_wins_over_output_filename(bench: Bench) -> None:
    parameters = {"function_args": {"output_path": "a.csv"}, "output_filename": "b.csv"}
    assert bench.run("def run(output_path): SEEN.append(output_path)", module_parameters=parameters) == [
        str(bench.session_folder / "a.csv")
    ]


def test_arguments_of_the_entry_itself(bench: Bench) -> None:
    assert bench.run("def go(subject): SEEN.append(subject)", function="go", function_args={"subject": "m1"}) == ["m1"]


def test_an_argument_that_is_missing_is_a_type_error(bench: Bench) -> None:
    with pytest.raises(TypeError, match="seed"):
        bench.run("def run(seed): pass", module_parameters={"function_args": {"sed": 1}})


MAKE_TABLE = "def make_table(kind, output_path, seed=None): SEEN.append((kind, output_path, seed))"


@pytest.mark.parametrize(
    "entry",
    [
        {"module_parameters": {"kwargs": {"kind": "short", "seed": 1, "output_filename": "table.csv"}}},
        {"module_parameters": {"function_args": {"kind": "short", "seed": 1, "output_filename": "table.csv"}}},
        {"module_parameters": {"kind": "short", "seed": 1, "output_filename": "table.csv"}},
        {"module_parameters": {"kind": "short", "seed": 1, "output_path": "table.csv"}},
        {"module_parameters": {"function_args": {"kind": "short", "seed": 1, "output_path": "table.csv", "comment": "x"}}},
    ],
    ids=["kwargs", "function_args", "flat name", "flat path", "one too many"],
)
def test_what_the_launcher_runs(bench: Bench, entry: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert bench.run(MAKE_TABLE, function="make_table", **entry) == [("short", str(bench.session_folder / "table.csv"), 1)]
    assert ("argument comment='x' is left out" in caplog.text) == ("comment" in str(entry))


def test_a_function_that_takes_anything_gets_everything(bench: Bench) -> None:
    parameters = {"function_args": {"a": 1, "b": 2}}
    assert bench.run("def run(**more): SEEN.append(more)", module_parameters=parameters) == [{"a": 1, "b": 2}]


def test_async_functions_are_awaited(bench: Bench) -> None:
    with pytest.raises(ModuleFailed, match="returned 3"):
        bench.run("async def run(): return 3")


def test_generators_fail(bench: Bench) -> None:
    with pytest.raises(ModuleFailed, match="generator"):
        bench.run("def run(): yield 1")


@pytest.mark.parametrize(("code", "message"), [("3", "3"), ("'no laser'", "no laser"), ("True", "True")])
def test_sys_exit_with_a_code_fails(bench: Bench, code: str, message: str) -> None:
    with pytest.raises(ModuleFailed, match=message):
        bench.run(f"import sys\ndef run(): sys.exit({code})")


@pytest.mark.parametrize("code", ["", "0", "None"])
def test_sys_exit_with_zero_is_success(bench: Bench, code: str) -> None:
    bench.run(f"import sys\ndef run(): sys.exit({code})")


def test_sys_exit_at_import_fails(bench: Bench) -> None:
    with pytest.raises(ModuleFailed, match="while it was imported"):
        bench.run("raise SystemExit(0)")


def test_exceptions_pass_through(bench: Bench) -> None:
    with pytest.raises(ZeroDivisionError):
        bench.run("def run(): 1 / 0")


class Scalar:
    """What NumPy's scalars have."""

    shape = ()

    def __init__(self, value: Any) -> None:
        self.value = value

    def item(self) -> Any:
        return self.value


@pytest.mark.parametrize(
    "value", [None, True, 0, 0.0, -0.0, Decimal(0), 0j, "", "text", {}, {"a": 1}, [], Path("x"), Scalar(True), Scalar(0)]
)
def test_success(bench: Bench, value: Any) -> None:
    judge(value, bench.context)


@pytest.mark.parametrize("value", [False, 1, -1, 0.5, float("nan"), Decimal("NaN"), Scalar(False), Scalar(2)])
def test_failure(bench: Bench, value: Any) -> None:
    with pytest.raises(ModuleFailed):
        judge(value, bench.context)


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.integers())))
def test_only_numbers_can_fail(value: Any) -> None:
    context = ModuleContext({}, Path())
    if isinstance(value, (bool, int, float)) and value is not True and (value is False or value != 0):
        with pytest.raises(ModuleFailed):
            judge(value, context)
    else:
        judge(value, context)


def test_numpy_values() -> None:
    numpy = pytest.importorskip("numpy")
    context = ModuleContext({}, Path())
    judge(numpy.bool_(True), context)
    judge(numpy.int64(0), context)
    judge(numpy.zeros(3), context)
    for value in (numpy.bool_(False), numpy.float32(1)):
        with pytest.raises(ModuleFailed):
            judge(value, context)


def test_a_product_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        judge("x" * 1000, bench.context)
    assert len(caplog.messages[0]) < 300


# Scripts


def test_neighbours_of_the_same_name_do_not_mix(bench: Bench) -> None:
    for folder in "ab":
        bench.script(f"WHO = '{folder}'", f"{folder}/helper_of_scripts.py")
        text = "import helper_of_scripts\ndef run(): SEEN.append(helper_of_scripts.WHO)"
        assert bench.run(text, module_path=f"{folder}/step.py") == [folder]
    assert "helper_of_scripts" not in sys.modules
    assert not any(entry.startswith(str(bench.repository)) for entry in sys.path)


def test_late_imports_and_packages_of_neighbours(bench: Bench) -> None:
    bench.script("WHO = 'package'", "a/tools_of_scripts/inner.py")  # a namespace package
    bench.script("", "a/full_of_scripts/__init__.py")
    bench.script("from . import other\nWHO = other.WHO", "a/full_of_scripts/mod.py")
    bench.script("WHO = 'other'", "a/full_of_scripts/other.py")
    text = "def run():\n from tools_of_scripts.inner import WHO\n from full_of_scripts import mod\n SEEN.append((WHO, mod.WHO))"
    assert bench.run(text, module_path="a/step.py") == [("package", "other")]
    assert not [name for name in sys.modules if "_of_scripts" in name]


def test_a_loaded_module_of_the_same_name_is_put_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    other = types.ModuleType("helper_of_scripts")
    monkeypatch.setitem(sys.modules, "helper_of_scripts", other)
    bench.script("WHO = 'mine'", "helper_of_scripts.py")
    assert bench.run("def run():\n import helper_of_scripts\n SEEN.append(helper_of_scripts.WHO)") == ["mine"]
    assert sys.modules["helper_of_scripts"] is other


def test_state_survives_from_step_to_step(bench: Bench) -> None:
    bench.script("import shared_of_scripts\ndef run_pre_acquisition(): shared_of_scripts.CAMERA = 5", "pre.py")
    bench.script("CAMERA = None", "shared_of_scripts.py")
    bench.script("import shared_of_scripts\ndef run(): return 0 if shared_of_scripts.CAMERA == 5 else 1", "post.py")
    run_entry(make_entry(module_path="pre.py"), bench.context)
    run_entry(make_entry(module_path="post.py"), bench.context)


def test_surroundings_are_put_back_after_a_failure(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    argv, path = list(sys.argv), list(sys.path)
    with pytest.raises(ValueError, match=r"step\.py"):
        bench.run("import os, sys\ndef run():\n os.chdir('/')\n raise ValueError(str(sys.argv))")
    assert (sys.argv, sys.path, Path.cwd()) == (argv, path, tmp_path)


def test_dataclasses_work_in_scripts(bench: Bench) -> None:
    text = (
        "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass A:\n  x: int = 1\ndef run(): A()"
    )
    bench.script(text)
    run_entry(make_entry(), bench.context)


def test_both_slashes_and_a_missing_suffix(bench: Bench) -> None:
    path = bench.script("", "code/src/go.py").resolve()
    for text in ("code/src/go.py", "code\\src\\go.py", "code/src/go", str(path)):
        assert find_script(text, bench.repository) == (path, "")


def test_the_base_name_is_looked_up(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.script("def run(): pass", "new/place/go.py")
    bench.script("def run(): 1/0", ".venv/go.py")
    run_entry(make_entry(module_path="old/go.py"), bench.context)
    assert "found by its name" in caplog.text


def test_the_longest_shared_end_decides_and_a_tie_does_not(bench: Bench) -> None:
    near = bench.script("", "x/mindscope/go.py").resolve()
    bench.script("", "y/other/go.py")
    assert find_script("code/Mindscope/go.py", bench.repository)[0] == near
    with pytest.raises(ScriptNotFound, match="several"):
        find_script("code/elsewhere/go.py", bench.repository)


def test_folders_beside_the_repository(bench: Bench, tmp_path: Path) -> None:
    path = bench.script("", "go.py").resolve()
    assert find_script("go.py", None, [tmp_path, bench.repository])[0] == path
    with pytest.raises(ScriptNotFound):
        find_script("gone.py", None, [tmp_path])


# Mistakes


def test_mistakes_before_the_session(bench: Bench) -> None:
    bench.script("def run_pre_acquisitions(): pass")
    bench.script("def run(:", "broken.py")
    bench.script("from helper import *", "star.py")
    entries = [
        make_entry(module_type="launcher_module", module_path="disk_space_chek"),
        make_entry(),
        make_entry(module_path="gone.py"),
        make_entry(module_path="broken.py"),
        make_entry(module_path="star.py"),
        make_entry(module_type="launcher_module", module_path="disk_space_check", module_parameters={"required_free_gb": 1}),
    ]
    mistakes = [str(mistake) for mistake in check_entries(entries, repository=bench.repository)]
    assert len(mistakes) == 4
    assert "did you mean 'disk_space_check'" in mistakes[0]
    assert "did you mean 'run_pre_acquisitions'" in mistakes[1]
    assert "gone.py" in mistakes[2]
    assert "line 1" in mistakes[3]
    assert all("pre_acquisition_pipeline[0]" in text for text in mistakes)
    assert len(check_entries(entries, repository=bench.repository, dry_run=True)) == 4
    elsewhere = bench.repository / "not fetched yet"
    assert len(check_entries(entries, repository=elsewhere, elsewhere=True)) == 1
    assert len(check_entries(entries, repository=elsewhere)) == 5


def test_what_a_dry_run_cannot_know_is_told_apart(bench: Bench) -> None:
    bench.script("def run(:", "broken.py")
    entries = [
        make_entry(module_type="launcher_module", module_path="session_archiver_of_2031"),
        make_entry(module_path="gone.py"),
        make_entry(module_path="C:/lab/gone.py"),
        make_entry(module_path="broken.py"),
    ]
    for elsewhere, known in ((True, ["broken.py"]), (False, ["gone.py", "broken.py"])):
        unknown: list[Mistake] = []
        repository = bench.repository
        mistakes = check_entries(entries, repository=repository, elsewhere=elsewhere, dry_run=True, unknown=unknown)
        assert [name for name in known if any(name in str(mistake) for mistake in mistakes)] == known
        assert len(mistakes) == len(known)
        assert len(unknown) == 4 - len(known)


@pytest.mark.parametrize(
    "text",
    [
        "run = 1 and None",
        "class run: pass",
        "from x import run",
        "try:\n def run(): pass\nfinally: pass",
        "if 1:\n run, b = 1, 2",
    ],
)
def test_all_ways_to_bind_a_name_are_seen(bench: Bench, text: str) -> None:
    bench.script(text)
    assert check_entries([make_entry()], repository=bench.repository) == []


def test_a_missing_script_is_told_with_each_folder_once_and_no_repository_where_there_is_none(tmp_path: Path) -> None:
    entries = [make_entry(module_type="script_module", module_path="count_trials.py")]
    (mistake,) = check_entries(entries, folders=[tmp_path, tmp_path])
    assert mistake.problem == f"there is no count_trials.py in {tmp_path}"
    assert mistake.remedy == "mend the path"
    (mistake,) = check_entries(entries, repository=tmp_path, folders=[tmp_path])
    assert mistake.remedy == "mend the path, or the repository and its commit"


def test_names_inside_functions_are_not_seen(bench: Bench) -> None:
    bench.script("def other():\n def run(): pass")
    assert len(check_entries([make_entry()], repository=bench.repository)) == 1


# Dry runs


def test_missing_modules_are_simulated_in_a_dry_run(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.context.dry_run = True
    with caplog.at_level(logging.INFO):
        run_entry(make_entry(module_type="launcher_module", module_path="slap2_meta_annotator"), bench.context)
        run_entry(make_entry(module_path="gone.py", function="make"), bench.context)
    assert "dry run: would run the ready-made module 'slap2_meta_annotator'" in caplog.messages[0]
    assert "call make of gone.py" in caplog.messages[1]


def test_a_script_at_hand_runs_in_a_dry_run_unless_it_says_no(bench: Bench) -> None:
    bench.context.dry_run = True
    assert bench.run("def run(dry_run): SEEN.append(dry_run)") == [True]
    bench.script("def run(): 1 / 0", "b.py")
    bench.context.parameters["simulate_in_dry_run"] = True
    run_entry(make_entry(module_path="b.py", module_parameters={"simulate_in_dry_run": True}), bench.context)


def test_missing_modules_fail_a_real_run(bench: Bench) -> None:
    for entry in (
        make_entry(module_type="launcher_module", module_path="slap2_meta_annotator"),
        make_entry(module_path="gone.py"),
    ):
        with pytest.raises(ModuleFailed):
            run_entry(entry, bench.context)


@pytest.mark.parametrize("name", [*READY_MADE, *EXAMPLES])
def test_every_ready_made_module_passes_a_dry_run(bench: Bench, name: str) -> None:
    bench.context.dry_run = True
    entry = make_entry(module_type="launcher_module", module_path=name)
    run_entry(entry, bench.context)
    assert simulates(entry, bench.context) is not name.startswith("example")


def test_a_measurement_outside_its_limits_fails_the_step(bench: Bench) -> None:
    kept: list[Any] = []
    bench.context.record = lambda *values, **limits: kept.append((values, limits))
    bench.context.measure("frames", 60, minimum=59, maximum=61)
    with pytest.raises(ModuleFailed, match=r"power = 7 mW is not at most 5"):
        bench.context.measure("power", 7, "mW", maximum=5)
    assert kept[0] == (("frames", 60, ""), {"minimum": 59, "maximum": 61, "passed": True})
    assert kept[1][1]["passed"] is False


def test_a_context_shows_no_parameters(bench: Bench) -> None:
    assert "m1" not in repr(bench.context)


def test_scripts_of_one_name_have_loggers_of_their_own(bench: Bench) -> None:
    for folder in "ab":
        bench.script("import logging\ndef run(): assert __name__ in __import__('sys').modules", f"{folder}/go.py")
        run_entry(make_entry(module_path=f"{folder}/go.py"), bench.context)
    first, second = (module.__name__ for module in bench.context.scripts._scripts.values())
    assert first.startswith("script_go")
    assert first != second
