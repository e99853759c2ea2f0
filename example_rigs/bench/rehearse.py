"""The rig's worst day, rehearsed: one dry run for each fault, and how it ended. For CI and for a rainy afternoon."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

#: Fault, and the outcome that a session must end with.
WORST_DAY = [
    ("laser.open=TimeoutError", "error"),
    ("laser.safe_state=OSError:stuck", "error"),
    ("laser.query=OSError:cable out", "failed"),
    ("laser.*=delay:50ms", "passed"),
    ("lick_spout.query=TimeoutError:no answer", "error"),
    ("stage.move=RuntimeError:axis blocked", "failed"),
    ("acquisition=exit:3", "failed"),
    ("acquisition=crash@0.5s", "failed"),
    ("acquisition=hang", "timeout"),
    ("acquisition=chatty:5000", "passed"),
]


def rehearse(fault: str) -> str:
    """Return the outcome of a dry run with one fault."""
    command = [sys.executable, "-m", "pytest", "-q", "--rig-config", "rig.yaml", "--dry-run", "--inject", fault, "--no-input"]
    done = subprocess.run([*command, "--subject-id", "nobody", "--user-id", "rehearsal"], capture_output=True, text=True)
    for line in done.stdout.splitlines():
        if line.startswith("session folder: "):
            folder = Path(line.removeprefix("session folder: "))
            state = json.loads((folder / "launcher_metadata" / "end_state.json").read_text(encoding="utf-8"))
            return str(state["outcome"])
    return f"no session (exit code {done.returncode}): {done.stdout[-500:]}{done.stderr[-500:]}"


def main(only: list[str]) -> int:
    """Rehearse all, or those named; 1 when one of them ended otherwise than it must."""
    unknown = set(only) - {fault for fault, _ in WORST_DAY}
    if unknown:
        sys.exit(f"not in WORST_DAY: {', '.join(sorted(unknown))}")
    wrong = 0
    for fault, expected in WORST_DAY:
        if only and fault not in only:
            continue
        outcome = rehearse(fault)
        wrong += outcome != expected
        print(f"{fault:45} {outcome}" + ("" if outcome == expected else f"   expected: {expected}"), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
