"""What a session costs, compared with plain pytest running the same tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Cost, Result, cost_of, in_turn, median_cost

TARGET_PER_TEST = 1.3
TARGET_SESSION = 3.0
TARGET_INERT = 1.02
_TESTS = 1000
_FLOOR = "plain pytest, same tests"
_PLUGIN = ("-p", "pytest_openscope.plugin")
#: For each ``-p`` pytest looks through the metadata of all that is installed. An installed plugin needs no ``-p``, so the
#: run without ours has one too, of an empty module.
_EMPTY = ("-p", "empty_plugin")


class Project:
    """A folder with a rig and trivial tests, in which pytest is run; nothing else than the plugins named is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "rig.yaml").write_text(f"rig_id: bench\nstate_directory: '{folder / 'state'}'\n", encoding="utf-8")
        (folder / "test_one.py").write_text("def test_one():\n    pass\n", encoding="utf-8")
        many = "\n\n".join(f"def test_{number}():\n    pass" for number in range(_TESTS))
        (folder / "test_many.py").write_text(many + "\n", encoding="utf-8")
        (folder / f"{_EMPTY[1]}.py").write_text("", encoding="utf-8")
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")

    def experiment(self) -> tuple[str, ...]:
        """Return the options that make a run an experiment."""
        root = str(self.folder / "sessions")
        options = ("--rig-config", "rig.yaml", "--no-input", "--subject-id", "m", "--user-id", "u", "--output-root", root)
        return (*_PLUGIN, *options)

    def run(self, *arguments: str) -> Cost:
        """Run pytest and return what it took.

        Raises:
            RuntimeError: the tests did not pass, so that there is nothing to compare.
        """
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("OPENSCOPE_", "PYTEST_"))}
        environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_timeout", *arguments]

        def run() -> None:
            done = subprocess.run(command, cwd=self.folder, env=environ, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)} gave {done.returncode}:\n{done.stdout}{done.stderr}")

        return cost_of(run)


def _runs(project: Project, *arguments: str) -> Callable[[], Cost]:
    return lambda: project.run(*arguments)


def _per_test(project: Project, rounds: int) -> Result:
    """What each further test adds: the difference between a thousand tests and one."""
    experiment = project.experiment()
    many = in_turn(_runs(project, "test_many.py"), _runs(project, *experiment, "test_many.py"), rounds)
    one = in_turn(_runs(project, "test_one.py"), _runs(project, *experiment, "test_one.py"), rounds)
    base, ours = (
        [(long - median_cost(short)).per(_TESTS - 1) for long in longs] for longs, short in zip(many, one, strict=True)
    )
    whole = Result("", "", *many, decides="cpu").ratio
    note = f"the whole runs: {whole:.3f}"
    return Result(f"each of {_TESTS} steps", _FLOOR, base, ours, TARGET_PER_TEST, decides="cpu", per="step", notes=(note,))


def run(quick: bool) -> list[Result]:
    """Measure the tests of a large session, a whole minimal session, and a run that is no experiment."""
    rounds = 3 if quick else 9
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder).resolve())
        per_test = _per_test(project, rounds)
        plain = _runs(project, "test_one.py")
        whole = in_turn(plain, _runs(project, *project.experiment(), "test_one.py"), 3 * rounds)
        inert = in_turn(_runs(project, *_EMPTY, "test_one.py"), _runs(project, *_PLUGIN, "test_one.py"), 5 * rounds)
    return [
        per_test,
        Result("a whole session with one step", _FLOOR, *whole, TARGET_SESSION, decides="cpu"),
        Result("a run that is no experiment, plugin installed", _FLOOR, *inert, TARGET_INERT, decides="cpu"),
    ]
