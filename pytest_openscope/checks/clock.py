"""Is the clock of this PC synchronised?"""

from __future__ import annotations

import re
import subprocess
import sys

from .result import FAIL, PASS, SKIP, WARN, CheckResult

#: The Windows Time service does not run: nobody sets the clock.
_NO_SERVICE = "0x80070426"


def check_clock(required: bool | None) -> CheckResult:
    """Ask the operating system whether its clock is synchronised; one that cannot tell is skipped, or a warning if required."""
    synchronised, words = clock_synchronised()
    remedy = "switch on time synchronisation (Windows: w32tm /resync; Linux: timedatectl set-ntp true)"
    if synchronised is None:
        return CheckResult(
            "clock", WARN if required else SKIP, f"the system cannot tell: {' '.join(words.split())}", remedy=remedy
        )
    if synchronised:
        return CheckResult("clock", PASS, words)
    return CheckResult("clock", FAIL if required else WARN, words, remedy=remedy)


def clock_synchronised() -> tuple[bool | None, str]:
    """Return whether the clock is synchronised (None: unknown), and the system's words."""
    if sys.platform == "win32":
        command = ["w32tm", "/query", "/status"]
    else:
        command = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if done.returncode and _NO_SERVICE in done.stdout + done.stderr:
        return False, "the Windows Time service does not run"
    return read_clock_status(done.stdout if not done.returncode else "", done.stderr.strip() or f"exit code {done.returncode}")


def read_clock_status(output: str, otherwise: str) -> tuple[bool | None, str]:
    """Read what ``timedatectl`` or ``w32tm`` printed; the latter's words are in the language of the system, not its numbers."""
    text = output.strip()
    if text in ("yes", "no"):
        return text == "yes", "synchronised" if text == "yes" else "not synchronised"
    stratum = re.search(r"stratum\s*:\s*(\d+)", text, re.IGNORECASE)
    if stratum is None:
        return None, otherwise
    lowered = text.lower()
    loose = stratum[1] in ("0", "16") or "local cmos clock" in lowered or "free-running" in lowered
    source = next((line.partition(":")[2].strip() for line in text.splitlines() if line.lower().startswith("source")), "")
    return not loose, f"stratum {stratum[1]}" + (f", source {source}" if source else "")
