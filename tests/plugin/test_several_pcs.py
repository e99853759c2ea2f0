"""One session over several PCs: real processes on loopback, with a launcher's side of the protocol and against each other."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import warm
from step_kit import PACE

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from launcher_sync import LauncherMaster, launcher_slave

SHARED = Path(__file__).parents[1] / "unit" / "data" / "params"

STEPS = """
def test_acquire(acquisition):
    {acquire}

@pytest.mark.post_acquisition
def test_save():
    open("saved", "w").close()
"""
needs_terminal = pytest.mark.skipif(sys.platform == "win32", reason="the operator types into a pseudo-terminal of POSIX")

#: Windows' consoles call a program's handler of Ctrl-C in a thread of its own. No console's keys are pressed here.
PRESSED = """
import os, signal, threading, time

def watch():
    while not os.path.exists("ctrl-c"):
        time.sleep(0.02)
    signal.raise_signal(signal.SIGINT)

threading.Thread(target=watch, daemon=True).start()
"""

#: A step that waits in Python, until the other node is seen to have failed or for ever.
WAIT = "time.sleep(60)"
FAIL = "time.sleep(0.5); assert False, 'the laser is on fire'"


class Node:
    """A rig in a folder of its own, which runs a session in a process of its own."""

    def __init__(self, folder: Path, role: str, port: int, **parameters: Any) -> None:
        self.path = folder
        folder.mkdir()
        keys = {
            "session_sync_role": role,
            "session_sync_port": port,
            "session_sync_node_name": folder.name,
            "session_sync_master_host": "127.0.0.1",
            "session_sync_bind_host": "127.0.0.1",
            "session_sync_retry_delay_sec": 0.05,
            "session_sync_timeout_sec": 60,
            "session_sync_ack_timeout_sec": 30,
            "stop_graceful_s": 1,
            **parameters,
        }
        text = f"rig_id: {folder.name}\noutput_root_folder: sessions\nstate_directory: state\n"
        (folder / "rig.yaml").write_text(text + "".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items()))
        if sys.platform == "win32":
            (folder / "conftest.py").write_text(PRESSED)
        self.process: Any = None

    def steps(self, body: str) -> None:
        head = "import os, sys, threading, time\nimport pytest\n\n"
        (self.path / "test_experiment.py").write_text(head + body)

    def command(self, *arguments: object, ids: bool = True) -> list[str]:
        given = ("--subject-id", "mouse7", "--user-id", "ada") if ids else ()
        plugins = ("-p", "pytest_openscope.plugin", "-p", "pytest_timeout")
        return [sys.executable, "-m", "pytest", *plugins, "--rig-config", "rig.yaml", *given, *map(str, arguments)]

    def start(self, *arguments: object, ids: bool = True) -> None:
        with open(self.path / "output.txt", "wb") as stream:
            command = self.command(*arguments, "--no-input", ids=ids)
            self.process = warm.start(command, cwd=self.path, stdout=stream, stderr=subprocess.STDOUT)

    def press_ctrl_c(self) -> None:
        if sys.platform == "win32":
            (self.path / "ctrl-c").touch()
        else:
            self.process.send_signal(signal.SIGINT)

    def end(self, timeout_s: float = 110.0) -> int:
        return int(self.process.wait(timeout_s))

    @property
    def output(self) -> str:
        return (self.path / "output.txt").read_text(encoding="utf-8")

    @property
    def folder(self) -> Path:
        root = self.path / "sessions"
        (only,) = [path for path in root.iterdir() if (path / "launcher_metadata").is_dir()]
        return only

    @property
    def state(self) -> Any:
        return json.loads((self.folder / "launcher_metadata" / "end_state.json").read_text(encoding="utf-8"))

    @property
    def log(self) -> str:
        return (self.folder / "launcher_metadata" / "launcher.log").read_text(encoding="utf-8")

    @property
    def table(self) -> dict[str, Any]:
        return {node["name"]: node for node in self.state["session_sync"]["nodes"]}

    def until(self, words: str, timeout_s: float = 60.0) -> None:
        """Wait until the session log has the words."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if words in self.log:
                    return
            except (OSError, ValueError):
                pass
            assert time.monotonic() < deadline, f"{words!r} did not come:\n{self.output}"
            time.sleep(0.02)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def pair(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what makes a master and a slave; ends what is left of them."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    made: list[Node] = []

    def make(**parameters: Any) -> tuple[Node, Node]:
        made.extend(
            Node(tmp_path / name, role, port, **parameters) for name, role in (("behaviour", "master"), ("camera", "slave"))
        )
        return made[0], made[1]

    yield make
    for node in made:
        if node.process is not None and node.process.poll() is None:
            node.process.kill()
            node.process.wait()


def run_both(master: Node, slave: Node, *arguments: object, **options: Any) -> tuple[int, int]:
    for node in (slave, master):
        node.start(*arguments, **options)
    return master.end(), slave.end()


def outcomes(node: Node) -> dict[str, str]:
    return {name: entry["outcome"] for name, entry in node.table.items()}


# -- the parameter files of the labs


def test_the_labs_files_run_against_each_other(pair: Any, port: int) -> None:
    master, slave = pair()
    for node in (master, slave):
        (node.path / "rig.yaml").write_text(f"rig_id: {node.path.name}\noutput_root_folder: sessions\nstate_directory: state\n")
    slave.start(SHARED / "session_sync_slave.json", "--param", f"session_sync_port={port}", ids=False)
    master.start(SHARED / "session_sync_master.json", "--param", f"session_sync_port={port}", ids=False)
    assert (master.end(), slave.end()) == (0, 0), master.output + slave.output
    assert master.folder.name == slave.folder.name
    assert master.folder.name.startswith("mouse123_")
    host = socket.gethostname()
    assert outcomes(master) == outcomes(slave) == {host: "passed", f"{host}[2]": "passed"}
    assert master.state["session_sync"]["nodes"] == slave.state["session_sync"]["nodes"]
    assert f"node {host}[2]: passed" in master.output


@pytest.mark.parametrize("role", ["master", "slave"])
def test_the_labs_files_run_dry_and_alone(pair: Any, role: str) -> None:
    node, _ = pair()
    (node.path / "rig.yaml").write_text("rig_id: r\noutput_root_folder: sessions\nstate_directory: state\n")
    node.start(SHARED / f"session_sync_{role}.json", "--dry-run", ids=False)
    assert node.end() == 0, node.output
    assert "simulated: session sync" in node.output


# -- with the launcher


def test_our_master_and_a_slave_with_the_launcher(pair: Any, port: int) -> None:
    master, _ = pair()
    master.steps(STEPS.format(acquire="pass"))
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(launcher_slave(port, "mouse7", "old-pc", 60)))
    thread.start()
    master.start()
    assert master.end() == 0, master.output
    thread.join(30)
    assert found[0][0] == master.folder.name
    assert master.table["old-pc"]["state"] == "unknown"
    assert master.table["behaviour"]["outcome"] == "passed"


def test_our_slave_and_a_master_with_the_launcher(pair: Any, port: int) -> None:
    _, slave = pair()
    slave.steps(STEPS.format(acquire="pass"))
    launcher = LauncherMaster(port, "mouse7", "named-by-the-launcher", timeout_s=60)
    slave.start()
    ((hello, acknowledgement),) = launcher.run()
    assert slave.end() == 0, slave.output
    assert hello == b'{"session_key":"mouse7","state":"ready","role":"slave","node_name":"camera"}\n'
    assert acknowledgement == b'{"status":"ack","session_name":"named-by-the-launcher","node_name":"camera"}\n'
    assert slave.folder.name == slave.state["session_uuid"] == "named-by-the-launcher"
    assert slave.table["launcher-pc"]["state"] == "unknown"


# -- start together


def test_acquisitions_start_together(pair: Any) -> None:
    master, slave = pair()
    steps = """
@pytest.mark.pre_acquisition
def test_prepare():
    time.sleep({0})

def test_acquire():
    with open("began", "w") as stream:
        stream.write(repr(time.time()))
"""
    master.steps(steps.format(0))
    slave.steps(steps.format(2 * PACE))
    slave.start()
    # The wait for others is nobody's timeout.
    master.start(f"--timeout={PACE}", "--param", f"session_timeout={2 * PACE}", "--param", "grace_s=0.1")
    assert (master.end(), slave.end()) == (0, 0), master.output + slave.output
    first, second = (float((node.path / "began").read_text()) for node in (master, slave))
    assert abs(first - second) < 1
    prepared = next(step for step in slave.state["steps"] if step["name"] == "test_prepare")
    waited = next(step for step in master.state["steps"] if step["name"] == "test_acquire")
    assert prepared["duration_s"] >= 2 * PACE
    assert waited["duration_s"] > 1


def test_a_node_that_is_not_ready_in_time_ends_it(pair: Any) -> None:
    master, slave = pair(session_sync_timeout_sec=3 * PACE)
    master.steps(STEPS.format(acquire="pass"))
    slave.steps("@pytest.mark.pre_acquisition\ndef test_prepare():\n    time.sleep(60)\n\ndef test_acquire(): pass\n")
    assert run_both(master, slave) == (1, 2), master.output + slave.output
    (failure, *_) = master.state["failures"]
    assert f"camera not ready to acquire within {3 * PACE} s (session_sync_timeout_sec)" in failure["message"]
    assert not (master.path / "saved").exists(), "nothing was acquired"
    assert "interrupted by node behaviour failed" in slave.state["failures"][0]["message"]


def test_or_the_others_start_without_it(pair: Any) -> None:
    master, slave = pair(session_sync_timeout_sec=3 * PACE, session_sync_on_failure="continue")
    master.steps(STEPS.format(acquire="pass"))
    prepare = f"@pytest.mark.pre_acquisition\ndef test_prepare():\n    time.sleep({5 * PACE})\n\n"
    slave.steps(f"{prepare}def test_acquire(): pass\n")
    assert run_both(master, slave) == (0, 0), master.output + slave.output
    assert f"camera not ready to acquire within {3 * PACE} s (session_sync_timeout_sec); going on without" in master.log
    assert outcomes(master) == outcomes(slave) == {"behaviour": "passed", "camera": "passed"}


# -- one fails, is stopped, dies


@pytest.mark.parametrize("failing", ["master", "slave"])
def test_a_failure_stops_the_others_and_their_data_are_saved(pair: Any, failing: str) -> None:
    master, slave = pair()
    bad, good = (master, slave) if failing == "master" else (slave, master)
    bad.steps(STEPS.format(acquire=FAIL))
    good.steps(STEPS.format(acquire=WAIT))
    run_both(master, slave)
    assert (bad.process.returncode, good.process.returncode) == (1, 2), good.output
    assert (good.path / "saved").exists()
    assert (bad.path / "saved").exists()
    (failure,) = good.state["failures"]
    name = bad.path.name
    assert failure["message"].startswith(f"interrupted by node {name} failed: acquisition step 'test_acquire' failed:")
    assert "the laser is on fire" in failure["message"]
    assert outcomes(master) == outcomes(slave) == {name: "failed", good.path.name: "interrupted"}
    assert master.state["session_sync"]["nodes"] == slave.state["session_sync"]["nodes"]
    assert good.table[name]["fault"] == "failed"


def test_a_secret_does_not_travel(pair: Any) -> None:
    master, slave = pair(api_token="correct-horse-9417")
    master.steps(STEPS.format(acquire="assert 0, 'login with correct-horse-9417 refused'"))
    slave.steps(STEPS.format(acquire=WAIT))
    (slave.path / "rig.yaml").write_text(
        (slave.path / "rig.yaml").read_text().replace("correct-horse-9417", "another-one-2222")
    )
    assert run_both(master, slave) == (1, 2), slave.output
    assert "login with" in slave.log
    assert "correct-horse" not in slave.log + slave.output + json.dumps(slave.state)


def test_a_running_program_of_the_other_node_is_stopped(pair: Any) -> None:
    master, slave = pair()
    master.steps(STEPS.format(acquire="acquisition.run(command=[sys.executable, '-c', 'import time; time.sleep(60)'])"))
    slave.steps(STEPS.format(acquire=FAIL))
    began = time.monotonic()
    assert run_both(master, slave) == (2, 1), master.output
    assert time.monotonic() - began < 55
    assert (master.path / "saved").exists()
    assert master.state["acquisitions"][0]["stop_reason"].startswith("interrupted by node camera failed")


def test_a_failure_is_told_before_the_step_is_torn_down(pair: Any) -> None:
    master, slave = pair()
    master.steps(STEPS.format(acquire=WAIT))
    slave.steps(
        """
@pytest.fixture
def slow():
    yield
    time.sleep(5)

def test_acquire(slow):
    with open("failed", "w") as stream:
        stream.write(repr(time.time()))
    assert False
"""
    )
    assert run_both(master, slave) == (2, 1), master.output
    stopped = next(step for step in master.state["steps"] if step["name"] == "test_acquire")
    assert stopped["duration_s"] < 4


def test_an_attempt_that_is_tried_again_is_no_failure(pair: Any) -> None:
    master, slave = pair()
    master.steps(STEPS.format(acquire="time.sleep(2)"))
    slave.steps(
        """
@pytest.mark.acquisition(attempts=2)
def test_acquire():
    if not os.path.exists("tried"):
        open("tried", "w").close()
        assert False
"""
    )
    assert run_both(master, slave) == (0, 0), master.output + slave.output


def test_a_failed_preparation_stops_the_others_before_they_acquire(pair: Any) -> None:
    master, slave = pair()
    master.steps(STEPS.format(acquire="open('acquired', 'w').close()"))
    slave.steps("@pytest.mark.pre_acquisition\ndef test_prepare():\n    time.sleep(1); assert 0\n\ndef test_acquire(): pass\n")
    assert run_both(master, slave) == (2, 1), master.output
    assert not (master.path / "acquired").exists()
    assert not (master.path / "saved").exists()


def test_files_that_cannot_be_collected_stop_the_others(pair: Any) -> None:
    master, slave = pair()
    master.steps(STEPS.format(acquire="open('acquired', 'w').close()"))
    slave.steps("import no_such_package\n")
    assert run_both(master, slave) == (2, 2), master.output
    assert not (master.path / "acquired").exists()
    assert outcomes(master) == {"behaviour": "interrupted", "camera": "error"}


def test_a_session_that_breaks_down_stops_the_others(pair: Any) -> None:
    master, slave = pair()
    master.steps(STEPS.format(acquire=WAIT))
    slave.steps("def test_acquire(): pass\n")
    broken = "def pytest_runtest_logreport(report):\n    if report.when == 'call': raise RuntimeError('a plugin is broken')\n"
    (slave.path / "conftest.py").write_text(broken)
    assert run_both(master, slave) == (2, 3), master.output
    assert "node camera failed: a plugin is broken" in master.log
    assert (master.path / "saved").exists()


def test_going_on_is_the_other_policy(pair: Any) -> None:
    master, slave = pair(session_sync_on_failure="continue")
    master.steps(STEPS.format(acquire="time.sleep(2)"))
    slave.steps(STEPS.format(acquire=FAIL))
    assert run_both(master, slave) == (0, 1), master.output
    assert "node camera failed: acquisition step 'test_acquire' failed" in master.output
    assert "this node goes on" in master.output
    assert outcomes(master) == outcomes(slave) == {"behaviour": "passed", "camera": "failed"}


def test_what_fails_after_the_acquisition_stops_nobody(pair: Any) -> None:
    master, slave = pair()
    master.steps(STEPS.format(acquire="time.sleep(3)"))
    slave.steps("def test_acquire(): pass\n\n@pytest.mark.post_acquisition\ndef test_save(): assert 0\n")
    assert run_both(master, slave) == (0, 1), master.output
    assert outcomes(master) == outcomes(slave) == {"behaviour": "passed", "camera": "failed"}


def test_a_failure_elsewhere_does_not_end_the_saving_of_data(pair: Any) -> None:
    master, slave = pair()
    save = "@pytest.mark.post_acquisition\ndef test_save():\n    time.sleep(4)\n    open('saved', 'w').close()\n"
    master.steps(f"def test_acquire(): pass\n\n{save}")
    slave.steps(STEPS.format(acquire="time.sleep(1.5); assert 0, 'the laser is on fire'"))
    assert run_both(master, slave) == (0, 1), master.output
    assert (master.path / "saved").exists()
    assert "the laser is on fire; this node goes on" in master.output


@pytest.mark.parametrize("stopped", ["master", "slave"])
def test_an_operator_stops_all(pair: Any, stopped: str) -> None:
    master, slave = pair()
    for node in (master, slave):
        node.steps(STEPS.format(acquire=WAIT))
        node.start()
    for node in (master, slave):
        node.until("all nodes start to acquire")
    at, other = (master, slave) if stopped == "master" else (slave, master)
    pressed = time.monotonic()
    at.press_ctrl_c()
    assert (at.end(), other.end()) == (2, 2)
    assert time.monotonic() - pressed < 40
    assert (other.path / "saved").exists()
    assert f"interrupted by node {at.path.name} stopped: interrupted by Ctrl-C" in other.state["failures"][0]["message"]
    assert master.state["session_sync"]["nodes"] == slave.state["session_sync"]["nodes"]


@pytest.mark.parametrize("killed", ["master", "slave"])
def test_a_killed_node_is_missed_at_once(pair: Any, killed: str) -> None:
    master, slave = pair()
    for node in (master, slave):
        node.steps(STEPS.format(acquire=WAIT))
        node.start()
    for node in (master, slave):
        node.until("all nodes start to acquire")
    dead, living = (master, slave) if killed == "master" else (slave, master)
    dead.process.kill()
    at = time.monotonic()
    assert living.end() == 2, living.output
    assert time.monotonic() - at < 40
    name = dead.path.name
    assert f"interrupted by node {name} is lost" in living.state["failures"][0]["message"]
    assert (living.path / "saved").exists()
    assert living.table[name]["state"] == "lost"
    # Its own sidecar writes its state, with the table as far as it knew it.
    until(lambda: dead.state["outcome"] == "crashed")
    assert dead.table[name]["outcome"] == "crashed"
    assert dead.table[living.path.name]["state"] in ("ready", "acquiring")


def test_a_node_that_hangs_is_missed_and_learns_of_it_when_it_wakes(pair: Any) -> None:
    master, slave = pair(session_sync_silence_sec=1)
    for node in (master, slave):
        node.steps(STEPS.format(acquire=WAIT))
        node.start()
    for node in (master, slave):
        node.until("all nodes start to acquire")
    stopped = psutil.Process(slave.process.pid)
    stopped.suspend()
    try:
        master.until("step interrupted")
        assert "interrupted by node camera is silent: nothing was heard of it for 1 s" in master.log
    finally:
        stopped.resume()
    assert (master.end(), slave.end()) == (2, 2), slave.output
    assert outcomes(slave) == {"behaviour": "interrupted", "camera": "interrupted"}
    assert (slave.path / "saved").exists()


def test_three_nodes_of_which_one_has_the_launcher(pair: Any, port: int, tmp_path: Path) -> None:
    master, slave = pair(session_sync_expected_slaves=3)
    ephys = Node(tmp_path / "ephys", "slave", port, **{"session_sync_timeout_sec": 20})
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(launcher_slave(port, "mouse7", "old-pc", 60)))
    thread.start()
    nodes = (ephys, slave, master)
    for node, acquire in zip(nodes, (WAIT, FAIL, WAIT), strict=True):
        node.steps(STEPS.format(acquire=acquire))
        node.start()
    codes = [node.end() for node in nodes]
    thread.join(30)
    assert codes == [2, 1, 2], ephys.output
    assert found[0][0] == master.folder.name
    assert "interrupted by node camera failed: acquisition step 'test_acquire' failed" in ephys.state["failures"][0]["message"]
    tables = [node.state["session_sync"]["nodes"] for node in nodes]
    assert tables[0] == tables[1] == tables[2]
    expected = {"behaviour": "interrupted", "camera": "failed", "ephys": "interrupted", "old-pc": None}
    assert outcomes(ephys) == expected


# -- who does not come together


def nothing_is_left(node: Node) -> bool:
    return not (node.path / "sessions").exists()


def test_a_wrong_key_creates_nothing(pair: Any) -> None:
    master, slave = pair()
    for node in (master, slave):
        node.steps(STEPS.format(acquire="pass"))
    master.start("--param", f"session_sync_timeout_sec={4 * PACE}")
    slave.start("--subject-id", "mouse8")
    assert slave.end() == 4
    assert "its session key is not 'mouse8' -> give both PCs the same subject" in slave.output
    assert nothing_is_left(slave)
    assert master.end() == 4
    assert "camera has the session key 'mouse8', this master 'mouse7'" in master.output
    assert f"0 of 1 slave came within {4 * PACE} s" in master.output
    assert nothing_is_left(master)


def test_two_masters_on_one_pc(pair: Any, port: int) -> None:
    master, slave = pair()
    master.steps(STEPS.format(acquire="pass"))
    with socket.create_server(("127.0.0.1", port)):
        master.start()
        assert master.end() == 4
    assert f"cannot listen on 127.0.0.1:{port} as master" in master.output
    assert nothing_is_left(master)
    # The rig is free again.
    slave.steps(STEPS.format(acquire="pass"))
    assert run_both(master, slave) == (0, 0), master.output


def test_a_slave_without_a_master(pair: Any) -> None:
    _, slave = pair(session_sync_timeout_sec=1)
    slave.steps(STEPS.format(acquire="pass"))
    slave.start()
    assert slave.end() == 4
    assert "no master at 127.0.0.1" in slave.output
    assert nothing_is_left(slave)


@pytest.mark.parametrize("word", ["none", "null", "disabled"])
def test_without_the_others_for_once(pair: Any, word: str) -> None:
    master, _ = pair()
    master.steps(STEPS.format(acquire="pass"))
    master.start("--param", f"session_sync_role={word}")
    assert master.end() == 0, master.output
    assert master.state["session_sync"] is None


def test_a_session_folder_that_one_pc_has_already(pair: Any) -> None:
    master, slave = pair(session_sync_session_name="day1")
    for node in (master, slave):
        node.steps(STEPS.format(acquire="pass"))
    (slave.path / "sessions" / "day1").mkdir(parents=True)
    assert run_both(master, slave) == (4, 4)
    assert "day1 exists, and nothing is ever overwritten" in slave.output
    assert "camera (127.0.0.1) cannot take part" in master.output
    assert nothing_is_left(master)


def test_two_nodes_with_one_output_folder(pair: Any) -> None:
    master, slave = pair()
    for node in (master, slave):
        node.steps(STEPS.format(acquire="pass"))
    both = (master.path / "sessions").as_posix()
    rig = (slave.path / "rig.yaml").read_text()
    (slave.path / "rig.yaml").write_text(rig.replace("output_root_folder: sessions", f"output_root_folder: '{both}'"))
    codes = run_both(master, slave)
    assert sorted(codes) == [2, 4], master.output + slave.output
    failed = master if codes[0] == 4 else slave
    assert "give each PC of a session its own output_root_folder" in failed.output


def test_a_validation_of_the_rig_meets_nobody(pair: Any) -> None:
    master, _ = pair()
    master.start("--validate-rig")
    assert master.end() in (0, 1), master.output
    assert "waiting for" not in master.output


@pytest.mark.parametrize("role", ["master", "slave"])
def test_ctrl_c_while_waiting(pair: Any, role: str) -> None:
    master, slave = pair()
    node = master if role == "master" else slave
    node.steps(STEPS.format(acquire="pass"))
    node.start()
    deadline = time.monotonic() + 60
    while not any(words in node.output for words in ("waiting for 1 slave", "no master at")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pressed = time.monotonic()
    node.press_ctrl_c()
    assert node.end(50) == 2, node.output
    assert time.monotonic() - pressed < 40
    assert nothing_is_left(node)


# -- the operator


class Typist:
    """A session at a terminal."""

    def __init__(self, node: Node, *arguments: object) -> None:
        import pty

        self.fd, child = pty.openpty()
        self.process = warm.start(node.command(*arguments), cwd=node.path, stdin=child, stdout=child, stderr=child)
        os.close(child)
        self.text = ""

    def until(self, words: str) -> None:
        deadline = time.monotonic() + 30
        while words not in self.text:
            assert time.monotonic() < deadline, self.text
            try:
                self.text += os.read(self.fd, 65536).decode("utf-8", "replace")
            except OSError:
                assert words in self.text, self.text

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self) -> int:
        self.until("session folder:")
        return self.process.wait(30)


@needs_terminal
def test_the_operator_bypasses_the_sync(pair: Any) -> None:
    master, _ = pair(ask_notes=False)
    master.steps(STEPS.format(acquire="pass"))
    typist = Typist(master)
    typist.until("Session sync is enabled (role: master). Press 'b' to bypass or Enter to continue.")
    typist.type("b\n")
    assert typist.end() == 0
    assert "the operator bypassed the session sync" in typist.text
    assert master.state["session_sync"] == {"role": "master", "node": None, "bypassed": True, "nodes": []}
    assert master.folder.name.startswith("mouse7_")


@needs_terminal
def test_or_goes_on_with_it(pair: Any, port: int) -> None:
    master, _ = pair(ask_notes=False, session_sync_bypass_prompt="{role}: alone? {x}")
    master.steps(STEPS.format(acquire="pass"))
    typist = Typist(master)
    typist.until("master: alone? {x}")
    typist.type("\n")
    name, _ = launcher_slave(port, "mouse7", "old-pc", 60)
    assert typist.end() == 0
    assert master.folder.name == name


@needs_terminal
def test_nobody_is_asked_where_the_bypass_is_forbidden(pair: Any, port: int) -> None:
    master, _ = pair(ask_notes=False, session_sync_allow_bypass=False)
    master.steps(STEPS.format(acquire="pass"))
    typist = Typist(master)
    launcher_slave(port, "mouse7", "old-pc", 60)
    assert typist.end() == 0
    assert "bypass" not in typist.text


# -- the end


def test_a_node_that_goes_on_for_long_is_not_waited_for(pair: Any) -> None:
    master, slave = pair(session_sync_end_wait_sec=1)
    master.steps(STEPS.format(acquire="pass"))
    slave.steps(STEPS.format(acquire=f"time.sleep({5 * PACE})"))
    slave.start()
    master.start()
    assert master.end() == 0, master.output
    assert slave.process.poll() is None
    assert master.table["camera"]["state"] == "acquiring"
    assert "camera had not ended when this session did" in master.log
    assert slave.end() == 0, slave.output
    assert outcomes(slave) == {"behaviour": "passed", "camera": "passed"}


def test_a_short_session_waits_for_the_others_outcomes(pair: Any) -> None:
    master, slave = pair()
    master.steps(STEPS.format(acquire="pass"))
    slave.steps(STEPS.format(acquire=f"time.sleep({3 * PACE}); assert 0"))
    slave.start()
    # Its own time is over while it waits.
    master.start(f"--session-timeout={2 * PACE}", "--param", "grace_s=0.1")
    assert (master.end(), slave.end()) == (0, 1), master.output
    assert "waiting for camera to end (at most 60 s; Ctrl-C to go on)" in master.output
    assert outcomes(master) == outcomes(slave) == {"behaviour": "passed", "camera": "failed"}
    assert "node camera: failed" in master.output


def test_a_session_that_goes_on_has_its_next_number_on_all(pair: Any) -> None:
    master, slave = pair()
    for node in (master, slave):
        node.steps(STEPS.format(acquire="pass"))
    assert run_both(master, slave) == (0, 0), master.output
    first = master.folder.name
    slave.start()
    master.start("--continue-session", "last")
    assert (master.end(), slave.end()) == (0, 0), master.output + slave.output
    for node in (master, slave):
        assert (node.path / "sessions" / f"{first}_2" / "launcher_metadata" / "end_state.json").exists()


def test_a_command_line_that_is_a_mistake_is_told(pair: Any) -> None:
    master, slave = pair()
    master.steps(STEPS.format(acquire="open('acquired', 'w').close()"))
    slave.steps("@pytest.mark.pre_aquisition\ndef test_prepare(): pass\n")
    assert run_both(master, slave) == (2, 4), master.output + slave.output
    assert not (master.path / "acquired").exists()


def until(what: Any, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if what():
                return
        except (OSError, ValueError, KeyError):
            pass
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.05)
