from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pytest_openscope.checks import measure, packages
from pytest_openscope.checks.result import FAIL, PASS, SKIP, WARN, CheckResult, at_least, at_most
from pytest_openscope.system.probe import run_probe


def statuses(results: dict[str, CheckResult]) -> dict[str, str]:
    return {part: result.status for part, result in results.items()}


class TestDisk:
    def test_measures_against_limits(self, tmp_path: Path) -> None:
        results = measure.check_disk(tmp_path / "new", {"free_gb": 0.001, "write_mb_per_s": 1e9, "fsync_ms": 1e6}, size_mb=2)
        expected = {"writable": PASS, "free_space": PASS, "write_speed": FAIL, "fsync": PASS}
        assert statuses(results) == expected
        speed = results["write_speed"]
        assert speed.value > 0
        assert (speed.unit, speed.limit) == ("MB/s", 1e9)
        assert "-> close what else writes" in str(speed)
        assert list((tmp_path / "new").iterdir()) == []

    def test_without_requirements_it_is_measured_all_the_same(self, tmp_path: Path) -> None:
        results = measure.check_disk(tmp_path, {}, size_mb=1)
        assert set(statuses(results).values()) == {PASS}
        assert all(result.value for part, result in results.items() if part != "writable")

    def test_unusable_root(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        results = measure.check_disk(tmp_path / "file" / "below", {}, size_mb=1)
        assert statuses(results) == {"writable": FAIL, "free_space": SKIP, "write_speed": SKIP, "fsync": SKIP}
        assert "disk.writable failed" in results["fsync"].message


class TestMirror:
    def test_reachable(self, tmp_path: Path) -> None:
        results = measure.check_mirror(str(tmp_path), {"mirror_latency_ms": 1e5, "clock_skew_s": 5})
        assert set(statuses(results).values()) == {PASS}
        assert list(tmp_path.iterdir()) == []

    def test_missing(self, tmp_path: Path) -> None:
        results = measure.check_mirror(str(tmp_path / "none"), {})
        assert results["writable"].status == FAIL
        assert "is the share mounted" in str(results["writable"])

    def test_a_share_that_hangs_costs_its_timeout_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        popen = subprocess.Popen
        hang = [sys.executable, "-c", "import time; time.sleep(60)"]
        monkeypatch.setattr(subprocess, "Popen", lambda command, **more: popen(hang, **more))
        result = measure.check_mirror("x", {"timeout_s": 0.3})["writable"]
        assert result.status == FAIL
        assert "no answer within 0.3 s" in result.message

    def test_probe_that_breaks(self) -> None:
        assert "TypeError" in run_probe("mirror", 20, nonsense=1)["error"]


class TestPrograms:
    def test_executables(self, tmp_path: Path) -> None:
        assert measure.check_executable(sys.executable, tmp_path).status == PASS
        (tmp_path / "tool").write_text("x", encoding="utf-8")
        if sys.platform != "win32":
            assert "chmod" in measure.check_executable("tool", tmp_path).remedy
            (tmp_path / "tool").chmod(0o755)
            assert measure.check_executable("tool", tmp_path).status == PASS
        assert measure.check_executable("no_such_bonsai", tmp_path).status == FAIL

    def test_repositories(self, tmp_path: Path) -> None:
        place = tmp_path / "repo"
        assert measure.check_repository("repo", tmp_path).status == FAIL
        place.mkdir()
        assert "no git repository" in measure.check_repository("repo", tmp_path).message
        git = ["git", "-C", str(place), "-c", "user.name=x", "-c", "user.email=x@y"]
        subprocess.run([*git, "init", "-q"], check=True)
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
        result = measure.check_repository("repo", tmp_path)
        assert result.status == PASS
        assert len(result.value) == 40
        (place / "new").mkdir()
        (place / "new" / "file").write_text("x")
        assert measure.check_repository("repo", tmp_path).status == WARN
        inner = measure.check_repository("repo/new", tmp_path)
        assert inner.status == FAIL
        assert "no repository of its own" in inner.message

    def test_a_process_of_which_windows_tells_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # psutil lets plain errors of the system through, of processes that are protected or about to end.
        def refused(process: psutil.Process) -> str:
            raise OSError(22, "Invalid parameter", None, 87)

        for what in ("name", "status", "environ", "cmdline"):
            monkeypatch.setattr(psutil.Process, what, refused)
        assert measure.check_processes(["bonsai"], "x").status == PASS
        with socket.create_server(("127.0.0.1", 0)) as server:
            taken = measure.check_tcp_port(server.getsockname()[1])
        assert f"by pid {os.getpid()}" in taken.message

    def test_left_over_processes(self, tmp_path: Path) -> None:
        start = "import subprocess, sys, os; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'],"
        start += " start_new_session=True, stdout=subprocess.DEVNULL); print(p.pid, flush=True)"
        environment = {**os.environ, "OPENSCOPE_SESSION_UUID": "mouse_2026-01-01_10-00-00"}
        # No pipe, which the process that stays would hold open on Windows.
        with open(tmp_path / "pid", "wb") as stream:
            subprocess.run([sys.executable, "-c", start], env=environment, stdout=stream, check=True)
        pid = int((tmp_path / "pid").read_text(encoding="ascii"))
        # psutil keeps what it has seen: here a process that had this number before.
        (seen,) = (process for process in psutil.process_iter() if process.pid == pid)
        seen._ident = (pid, 1.0)
        try:
            result = measure.check_processes([], "another")
            assert result.status == FAIL
            assert f"pid {pid}, session mouse_2026-01-01_10-00-00" in result.message
            assert f"pid {pid}" not in measure.check_processes([], "mouse_2026-01-01_10-00-00").message
        finally:
            os.kill(pid, 9)

    def test_memory_and_python(self) -> None:
        assert measure.check_memory(1e9).status == FAIL
        assert measure.check_memory(None).status == PASS
        assert measure.check_python(">=3.8").status == PASS
        assert measure.check_python("<3.8").status == FAIL
        assert measure.check_python("newest").status == FAIL

    def test_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RIG_TOKEN", "secret-value")
        result = measure.check_environment("RIG_TOKEN")
        assert result.status == PASS
        assert "secret-value" not in str(result)
        assert measure.check_environment("RIG_NO_TOKEN").status == FAIL


class TestPorts:
    def test_tcp(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            taken = measure.check_tcp_port(f"127.0.0.1:{port}")
            assert taken.status == FAIL
            assert f"pid {os.getpid()}" in taken.message
        assert measure.check_tcp_port(f"127.0.0.1:{port}").status == PASS
        assert measure.check_tcp_port("http").status == FAIL

    @pytest.mark.parametrize("port", [0, 70000, -1, "lab:", "5 5", "²"])
    def test_no_port(self, port: int | str) -> None:
        assert "is no port" in measure.check_tcp_port(port).message

    def test_not_an_address_of_this_pc(self) -> None:
        result = measure.check_tcp_port("192.0.2.1:5555")
        assert result.status == FAIL
        assert "cannot be listened on" in result.message

    def test_a_listener_on_one_address_takes_the_port(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            assert measure.check_tcp_port(server.getsockname()[1]).status == FAIL

    def test_serial(self, tmp_path: Path) -> None:
        missing = measure.check_serial_port("/dev/tty_none")
        assert missing.status == FAIL
        assert "not there (ports:" in missing.message
        assert measure.check_serial_port("socket://1.2.3.4:5").status == SKIP
        if sys.platform != "win32":
            (tmp_path / "tty").touch()
            assert measure.check_serial_port(str(tmp_path / "tty")).status == PASS


class TestPackages:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("requirements.lock", "# made by hand\npytest=={0}  # why\n-e .\nnamed[extra]=={0} ; python_version > '3'\n"),
            ("requirements.txt", "pytest=={0} \\\n    --hash=sha256:aa\n"),
            (
                "uv.lock",
                '[[package]]\nname = "pytest"\nversion = "{0}"\n'
                '[[package]]\nname = "me"\nversion = "1"\nsource = {{ editable = "." }}\n',
            ),
            ("pylock.toml", '[[packages]]\nname = "pytest"\nversion = "{0}"\n'),
        ],
    )
    def test_lock_files(self, name: str, text: str, tmp_path: Path) -> None:
        (tmp_path / name).write_text(text.format(pytest.__version__), encoding="utf-8")
        lock = packages.read_lock(tmp_path / name)
        assert lock.pop("pytest").versions == (pytest.__version__,)
        assert [(name, found.versions) for name, found in lock.items()] in ([], [("named", (pytest.__version__,))])

    def test_compared(self, tmp_path: Path) -> None:
        (tmp_path / "lock").write_text(f"pytest=={pytest.__version__}\n", encoding="utf-8")
        assert packages.check_packages("lock", tmp_path).status == PASS
        (tmp_path / "lock").write_text("pytest==0.1\nno-such-package==2\n", encoding="utf-8")
        result = packages.check_packages("lock", tmp_path)
        assert result.status == FAIL
        assert result.message == f"pytest {pytest.__version__} (lock: 0.1), no-such-package missing (lock: 2)"
        assert packages.check_packages(None, tmp_path).status == SKIP
        assert packages.check_packages("none", tmp_path).status == FAIL
        (tmp_path / "lock").write_text("pytest>=3\n", encoding="utf-8")
        assert "no exact versions" in packages.check_packages("lock", tmp_path).message

    def test_lines_for_other_systems_do_not_count(self, tmp_path: Path) -> None:
        text = f"pytest=={pytest.__version__}\nnot-here==1 ; sys_platform == 'none'\nhere==2 ; python_version > '3'\n"
        (tmp_path / "lock").write_text(text, encoding="utf-8")
        assert packages.check_packages("lock", tmp_path).message == "here missing (lock: 2)"
        (tmp_path / "pylock.toml").write_text(
            f'[[packages]]\nname = "pytest"\nversion = "{pytest.__version__}"\n'
            '[[packages]]\nname = "not-here"\nversion = "1"\nmarker = "sys_platform == \'none\'"\n',
            encoding="utf-8",
        )
        assert packages.check_packages("pylock.toml", tmp_path).status == PASS

    def test_a_uv_lock_asks_for_what_the_project_needs_here(self, tmp_path: Path) -> None:
        (tmp_path / "uv.lock").write_text(
            '[[package]]\nname = "lab"\nversion = "1"\nsource = { virtual = "." }\n'
            'dependencies = [{ name = "pytest" }, { name = "only-there", marker = "sys_platform == \'none\'" }]\n'
            f'[[package]]\nname = "pytest"\nversion = "{pytest.__version__}"\ndependencies = [{{ name = "needed-here" }}]\n'
            '[[package]]\nname = "pytest"\nversion = "0.1"\nresolution-markers = ["sys_platform == \'none\'"]\n'
            '[[package]]\nname = "only-there"\nversion = "1"\n'
            '[[package]]\nname = "of-an-extra"\nversion = "1"\n'
            '[[package]]\nname = "needed-here"\nversion = "3"\n'
            '[[package]]\nname = "pluggy"\nversion = "0.0.1"\n',
            encoding="utf-8",
        )
        result = packages.check_packages("uv.lock", tmp_path)
        assert result.status == FAIL
        assert result.message.startswith("needed-here missing (lock: 3), pluggy ")
        assert "only-there" not in result.message
        assert result.remedy.startswith("uv sync")

    def test_the_same_version_written_otherwise(self) -> None:
        assert packages._same("1.0", "1.0.0")
        assert not packages._same("1.0", "1.0.1")
        assert not packages._same("missing", "1.0")


class TestClock:
    @pytest.mark.parametrize(
        ("output", "expected"),
        [
            ("yes\n", True),
            ("no\n", False),
            ("Leap Indicator: 0(no warning)\nStratum: 4\nSource: time.windows.com,0x8", True),
            ("Leap Indicator: 3(not synchronized)\nStratum: 0\nSource: Local CMOS Clock", False),
            ("Sprungindikator: 3(nicht synchronisiert)\nStratum: 0 (nicht angegeben)\nQuelle: Lokale CMOS-Uhr", False),
            ("Sprungindikator: 0(keine Warnung)\nStratum: 3 (Sekundärreferenz)\nQuelle: time.lab", True),
            ("", None),
        ],
    )
    def test_what_systems_say(self, output: str, expected: bool | None) -> None:
        assert measure.read_clock_status(output, "unknown")[0] is expected

    @pytest.mark.parametrize(
        ("known", "required", "status"),
        [(True, True, PASS), (False, True, FAIL), (False, None, WARN), (None, True, WARN), (None, None, SKIP)],
    )
    def test_results(self, known: bool | None, required: bool | None, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(measure, "clock_synchronised", lambda: (known, "words"))
        assert measure.check_clock(required).status == status

    def test_here(self) -> None:
        assert measure.check_clock(None).status in (PASS, WARN, SKIP)


class TestGithub:
    @pytest.mark.parametrize(
        ("findings", "expected"),
        [
            ("ok token,ok repository,ok label,ok issues", PASS),
            ("ok token,warning public,warning privacy,warning label", PASS),
            ("ok token,ok repository,warning permission", WARN),
            ("ok repository,warning repository", WARN),
            ("warning server", WARN),
            ("ok token,error server", WARN),
            ("error token", FAIL),
            ("error access", FAIL),
            ("ok repository,error scope,warning permission", FAIL),
        ],
    )
    def test_findings(self, findings: str, expected: str) -> None:
        found = [
            {"level": level, "what": what, "text": f"{level} {what} -> mend it"}
            for level, what in (one.split() for one in findings.split(","))
        ]
        result = measure.check_github(SETTINGS, lambda settings, limit_s: found, {})
        assert result.status == expected, result
        assert result.remedy == ("" if expected == PASS else "mend it")
        assert result.message in ("lab/rig can be written", *(one["text"].partition(" -> ")[0] for one in found))

    def test_no_answer_is_waited_for(self) -> None:
        found = [{"level": "error", "what": "server", "text": "no answer within 3 s"}]
        limits: list[float] = []
        result = measure.check_github(SETTINGS, lambda settings, limit_s: limits.append(limit_s) or found, {"timeout_s": 3})
        assert (result.status, limits) == (WARN, [3.0])
        assert "outbox" in result.remedy

    def test_without_wish(self) -> None:
        assert measure.check_github(None, lambda settings, limit_s: (), {}).status == SKIP


SETTINGS = SimpleNamespace(enabled=True, repo="lab/rig")


class Laser:
    answer: Any = None

    def check(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Mute:
    """A driver without ``check``."""


class Devices(dict[str, Any]):
    """As much of the device manager as a check touches."""

    def __init__(self, device: Any, closes: bool = True) -> None:
        super().__init__(laser=device)
        self.closes = closes
        self.specs = {"laser": SimpleNamespace(check_timeout_s=2.0)}
        self.closed: list[str] = []

    def mock(self, name: str) -> Any:
        return self[name]

    def check(self, name: str) -> Any:
        device = self[name]
        return device.check() if hasattr(device, "check") else None

    def opened(self) -> list[str]:
        return ["laser"]

    def close(self, name: str) -> None:
        self.closed.append(name)
        if not self.closes:
            raise OSError("stuck")


def laser(answer: Any) -> Laser:
    device = Laser()
    device.answer = answer
    return device


class TestDevices:
    def test_results(self) -> None:
        good = measure.check_device("laser", Devices(laser("LASER 1")))
        assert good.message.startswith("says 'LASER 1' (opened in")
        assert (good.unit, good.limit) == ("ms", 2000.0)
        assert good.value < 2000
        assert measure.check_device("laser", Devices(laser(None))).message.startswith("opens, answers and closes")
        assert "does not close" in measure.check_device("laser", Devices(laser(True), closes=False)).message

    def test_a_driver_without_check_proves_no_answer(self) -> None:
        result = measure.check_device("laser", Devices(Mute()))
        assert (result.status, result.value) == (PASS, None)
        assert "has no check()" in result.message

    def test_what_fails_is_closed_all_the_same(self) -> None:
        devices = Devices(laser(TimeoutError("no answer")), closes=False)
        result = measure.check_device("laser", devices)
        assert (result.status, result.message) == (FAIL, "TimeoutError: no answer")
        assert devices.closed == ["laser"]


def test_limits_hold_at_the_limit() -> None:
    assert at_least(5.0, 5, "GB", "", "").status == PASS
    assert at_most(5.0, 5, "ms", "", "").status == PASS
    assert str(at_most(7.25, 5, "ms", "slow", "do it")) == ": fail: slow [7.25 ms, limit 5 ms] -> do it"
    assert str(at_most(7.25, None, "ms", "slow", "do it")) == ": pass: slow [7.25 ms]"
