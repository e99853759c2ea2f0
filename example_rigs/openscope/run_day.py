"""Runs the whole rig on one computer: metadata service and both PCs at once. Exit code 0 when both sessions have passed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "stand_ins"))

from metadata_service import serve

HERE = Path(__file__).parent


def main(arguments: list[str]) -> int:
    service = serve(0)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    url = f"metadata_service_base_url=http://127.0.0.1:{service.server_address[1]}"
    bonsai = "bonsai_exe_path=stand_ins/bonsai.cmd" if sys.platform == "win32" else "bonsai_exe_path=stand_ins/bonsai.py"
    # The stand-in of Bonsai runs in this Python, which has baghban.
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
    common = [sys.executable, "-m", "pytest", "--no-input", "--subject-id", "mouse7", "--user-id", "demo", *arguments]
    pcs = [
        [*common, "--rig-config", "rig.yaml", "--param", url, "--param", bonsai, "stimulus.json"],
        [*common, "--rig-config", "camera_rig.yaml", "camera.json"],
    ]
    running = [subprocess.Popen(command, cwd=HERE, env=environment) for command in pcs]
    codes = [process.wait() for process in running]
    service.shutdown()
    print(f"stimulus PC: exit code {codes[0]}, camera PC: exit code {codes[1]}")
    return max(codes, key=abs)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
