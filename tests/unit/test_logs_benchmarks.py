"""The benchmarks' own arithmetic: a verdict must be what was measured, and the tables what the verdicts are."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import record, run
from benchmarks.harness import Cost, NotMeasuredError, Result, cost_of, in_turn


def costs(*wall_s: float) -> list[Cost]:
    return [Cost(one) for one in wall_s]


def test_both_sides_take_turns_after_one_warm_up_each() -> None:
    order: list[str] = []

    def side(name: str, seconds: float) -> Cost:
        order.append(name)
        return Cost(seconds)

    base, ours = in_turn(lambda: side("base", 2.0), lambda: side("ours", 1.0), rounds=3)
    assert "".join(name[0] for name in order) == "bo" + "bo" + "ob" + "bo"
    assert (base, ours) == (costs(2.0, 2.0, 2.0), costs(1.0, 1.0, 1.0))


def test_the_median_of_the_rounds_decides() -> None:
    result = Result("x", "y", base=costs(1.0, 1.0, 2.0), ours=costs(1.4, 9.0, 2.0), target=1.5)
    assert result.ratio == 1.4
    assert result.good
    assert str(result).startswith("ok   1.400 (≤ 1.5 x; min 1.000, max 9.000, 3 rounds, wall time decides)")
    assert not Result("x", "y", result.base, result.ours, target=1.3).good


def test_cpu_time_decides_where_it_was_asked_for_and_counted() -> None:
    base, ours = [Cost(1.0, 0.5)], [Cost(9.0, 0.6)]
    assert Result("x", "y", base, ours, target=1.5, decides="cpu").ratio == pytest.approx(1.2)
    assert Result("x", "y", base, ours, target=1.5).verdict == "MISS"
    uncounted = Result("x", "y", base, [Cost(9.0, 0.0)], target=1.5, decides="cpu")
    assert (uncounted.clock, uncounted.ratio) == ("wall", 9.0)


def test_limits_in_seconds_beside_the_ratio() -> None:
    base, ours = costs(0.1, 0.1, 0.1), costs(0.9, 1.5, 1.1)
    assert Result("x", "y", base, ours, limit_s=1.2).verdict == "ok"
    assert Result("x", "y", base, ours, limit_s=1.0).verdict == "MISS"
    assert Result("x", "y", base, ours, added_limit_s=0.9).verdict == "ok"
    assert Result("x", "y", base, ours, added_limit_s=0.7).verdict == "MISS"
    assert Result("x", "y", base, ours).verdict == ""


def test_a_broken_promise_is_a_miss_whatever_the_ratio() -> None:
    result = Result("x", "y", costs(1.0), costs(1.0), 2.0, broken=["lines were lost"])
    assert str(result).startswith("MISS")
    assert "NOT KEPT: lines were lost" in str(result)


def test_cost_counts_the_cpu_time_of_what_is_done() -> None:
    cost = cost_of(lambda: sum(range(300_000)))
    assert cost.cpu_s > 0
    assert cost.wall_s > 0


def test_whatever_is_named_can_be_run() -> None:
    for name in run.names():
        if name != "mirror_scaling" or sys.platform != "win32":
            assert callable(importlib.import_module(f"benchmarks.{name}").run), name


def test_an_unknown_name_is_refused_with_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"log_records", "sessions", "child_output", "session_report", "history", "live_page"} <= set(run.names())
    with pytest.raises(SystemExit):
        run.main(["no-such-benchmark"])
    assert "no-such-benchmark" in capsys.readouterr().err


def _broken(quick: bool) -> list[Result]:
    raise RuntimeError("no room")


def _missing(quick: bool) -> list[Result]:
    raise NotMeasuredError("there is no rsync on this computer")


MADE_UP = {
    "fast": lambda quick: [Result("a | b", "a plain file write", costs(1.0), costs(0.5), 0.8, per="record")],
    "slow": lambda quick: [Result("slow", "plain pytest", [Cost(1.0, 1.0)], [Cost(2.0, 3.0)], 1.3, decides="cpu")],
    "broken": _broken,
    "missing": _missing,
}


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stand-ins for the benchmarks, and a README of their own."""
    monkeypatch.setattr(run, "names", lambda: list(MADE_UP))
    monkeypatch.setattr(run, "_results", lambda name, quick: MADE_UP[name](quick))
    monkeypatch.setattr(run, "_ROOT", tmp_path)
    (tmp_path / "README.md").write_text(f"before\n{record.BEGIN}\nold\n{record.END}\nafter\n", encoding="utf-8")
    return tmp_path


def test_one_run_gives_lines_a_table_json_and_the_readme(made_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made_up / "figures.json"
    assert run.main(["--json", str(path), "--readme"]) == 1
    said = capsys.readouterr().out
    assert "ok   0.500 (≤ 0.8 x" in said
    assert "MISS 3.000 (≤ 1.3 x" in said
    assert "load average" in said
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert [(one["name"], one["floor"], one["ratio"], one["good"]) for one in found["results"]] == [
        ("a | b", "a plain file write", 0.5, True),
        ("slow", "plain pytest", 3.0, False),
    ]
    assert found["results"][1]["rounds"] == {"ours": [[2.0, 3.0]], "base": [[1.0, 1.0]]}
    assert found["broken_off"] == [{"benchmark": "broken", "error": "RuntimeError: no room"}]
    assert found["not_measured"] == ["missing: there is no rsync on this computer"]
    assert found["machine"]["cores"] >= 1
    assert {"Python", "pytest", "pytest-openscope"} <= set(found["versions"])
    assert len(found["load_begin"]) == len(found["load_end"]) == 3
    readme = (made_up / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(f"before\n{record.BEGIN}\n\nMeasured on 20")
    assert readme.endswith(f"{record.END}\nafter\n")
    assert "| a / b | a plain file write | 0.5 | ≤ 0.8 x | 500 ms per record | 1 s | ok |" in readme
    assert "| slow | plain pytest | 3 | ≤ 1.3 x | 2 s (CPU 3 s) per run | 1 s (CPU 1 s) | MISS |" in readme
    assert "old" not in readme
    # The same from the file, without measuring again.
    (made_up / "README.md").write_text(f"{record.BEGIN}{record.END}", encoding="utf-8")
    assert run.main(["--from", str(path), "--readme"]) == 1
    assert (made_up / "README.md").read_text(encoding="utf-8").strip() in readme


def test_what_is_missing_is_no_miss(made_up: Path) -> None:
    assert run.main(["fast", "missing"]) == 0
    assert run.main(["fast", "broken"]) == 1


def test_a_readme_without_markers_is_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="expected once each"):
        record.rewrite(readme, {"results": []})
    assert readme.read_text(encoding="utf-8") == "nothing"


def test_the_readme_has_the_markers() -> None:
    text = (Path(record.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert (text.count(record.BEGIN), text.count(record.END)) == (1, 1)
