"""The session log beside pytest's own logging plugin: users see what they would see without it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_openscope.log.lines import read_log

CONFTEST = """
    import pytest
    from pathlib import Path
    from pytest_openscope.log.session_log import SessionLog

    LOG = None

    @pytest.hookimpl(trylast=True)
    def pytest_configure(config):
        global LOG
        if config.getoption("collect_log"):
            LOG = SessionLog()
            LOG.install()
            LOG.open(Path("session.log"))

    def pytest_addoption(parser):
        parser.addoption("--collect-log", action="store_true")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(item):
        if LOG:
            LOG.ensure_attached()
            LOG.set_place("acquisition", item.name)
        return (yield)

    @pytest.fixture(autouse=True)
    def ensure():
        if LOG:
            LOG.ensure_attached()
        yield
        if LOG:
            LOG.ensure_attached()

    def pytest_unconfigure():
        if LOG:
            LOG.uninstall()
            LOG.close()
"""

TESTS = """
    import logging
    import pytest

    log = logging.getLogger("my.camera")

    @pytest.fixture
    def camera():
        log.info("setup info")
        log.warning("setup warning")
        yield
        log.info("teardown info")

    def test_default(caplog, camera):
        log.debug("debug")
        log.info("info")
        log.warning("warning")
        assert "seen: " + str(caplog.messages) == ""

    def test_set_level(caplog):
        caplog.set_level(logging.INFO)
        log.debug("debug")
        log.info("info")
        assert "seen: " + str(caplog.messages) == ""

    def test_set_level_of_a_logger(caplog):
        caplog.set_level(logging.DEBUG, logger="my")
        log.debug("debug")
        log.info("info")
        logging.getLogger("other").info("other")
        assert "seen: " + str(caplog.messages) == ""

    def test_quieter(caplog):
        caplog.set_level(logging.ERROR)
        log.warning("warning")
        assert "seen: " + str(caplog.messages) == ""

    def test_quieter_logger(caplog):
        caplog.set_level(logging.ERROR, logger="my.camera")
        log.info("info")
        log.debug("debug")
        log.error("error")
        assert "seen: " + str(caplog.messages) == ""

    def test_at_level(caplog):
        with caplog.at_level(logging.INFO):
            log.info("inside")
        log.info("outside")
        assert "seen: " + str(caplog.messages) == ""

    def test_afterwards(caplog):
        log.info("info")
        log.error("error")
        assert "seen: " + str(caplog.messages) == ""

    def test_bad_arguments():
        log.error("value %d %d", 1)
"""


def visible(result: pytest.RunResult) -> list[str]:
    """Return what a user sees, without times and the lines of the conftest that differ by nature."""
    lines = [line for line in result.outlines if not re.search(r" in \d+\.\d+s", line)]
    return [line for line in lines if "conftest.py" not in line and "site-packages" not in line and "/logging/" not in line]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-v"],
        ["-s"],
        ["-x"],
        ["--log-level=INFO"],
        ["--log-level=DEBUG"],
        ["--log-level=ERROR"],
        ["--log-cli-level=INFO"],
        ["--log-cli-level=DEBUG", "-o", "log_cli=true"],
        ["-o", "log_cli=true"],
        ["--log-file=own.log", "--log-file-level=INFO"],
        ["--show-capture=no"],
        ["-p", "no:logging", "-k", "bad_arguments"],
    ],
    ids=" ".join,
)
def test_the_user_sees_no_difference(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    arguments = ["-p", "no:cacheprovider", "--tb=short", *options]
    # Where pytest's own logging is off, Python's handler of last resort speaks: not in this process, which has handlers.
    run = pytester.runpytest_subprocess if "no:logging" in options else pytester.runpytest_inprocess
    without = run(*arguments)
    own_log = Path("own.log").read_text() if Path("own.log").exists() else ""
    with_log = run("--collect-log", *arguments)
    assert with_log.ret == without.ret
    assert visible(with_log) == visible(without)
    assert own_log == (Path("own.log").read_text() if own_log else "")
    seen = [(entry.step, entry.message.split("\n")[0]) for entry in read_log("session.log")]
    if "no:logging" in options:
        assert [step for step, _ in seen] == ["test_bad_arguments"]
        return
    assert seen[:2] == [("test_default", "setup info"), ("test_default", "setup warning")]
    assert ("test_default", "info") in seen
    assert ("test_default", "teardown info") in seen
    if "-x" not in options:
        assert ("test_afterwards", "info") in seen
        assert ("test_quieter", "warning") in seen
        assert [text for step, text in seen if step == "test_quieter_logger"] == ["error"]
        assert seen[-1][1].startswith("this record could not be formatted")
    assert not [message for _, message in seen if message == "debug"]


def test_in_process_runs_leave_nothing_behind(pytester: pytest.Pytester) -> None:
    import logging

    root = logging.getLogger()
    before = (logging.Logger.callHandlers, logging.Logger.getEffectiveLevel, root.level, root.handlers[:])
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    pytester.runpytest_inprocess("--collect-log", "-p", "no:cacheprovider")
    assert (logging.Logger.callHandlers, logging.Logger.getEffectiveLevel, root.level, root.handlers[:]) == before
    assert list(read_log("session.log"))
