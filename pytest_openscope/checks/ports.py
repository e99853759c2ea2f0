"""Serial ports must be there, TCP ports must be free."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

from .result import FAIL, PASS, SKIP, CheckResult

#: Windows says EACCES for a port that another program holds for itself alone.
_TAKEN = {errno.EADDRINUSE, 10048} | ({errno.EACCES, 10013} if sys.platform == "win32" else set())


def check_serial_port(port: str) -> CheckResult:
    """Find a serial port."""
    check = f"serial_ports[{port}]"
    if "://" in port:
        return CheckResult(check, SKIP, "a URL, not a port of this PC")
    try:
        from serial.tools import list_ports
    except ImportError:
        if sys.platform == "win32":
            return CheckResult(check, SKIP, "pyserial is not installed", remedy="pip install pytest-openscope[serial]")
        present = []
    else:
        present = [item.device for item in list_ports.comports()]
    if _is_among(port, present) or (sys.platform != "win32" and Path(port).exists()):
        return CheckResult(check, PASS, "present")
    there = ", ".join(present) or "none"
    return CheckResult(check, FAIL, f"{port} is not there (ports: {there})", remedy="plug it in; look in the device manager")


def _is_among(port: str, present: list[str]) -> bool:
    if sys.platform == "win32":
        return port.removeprefix("\\\\.\\").upper() in {name.upper() for name in present}
    return port in present


def check_tcp_port(port: int | str) -> CheckResult:
    """Find out whether a TCP port (``5555`` or ``host:5555``) can be listened on."""
    import socket

    check = f"tcp_ports[{port}]"
    host, _, digits = str(port).rpartition(":")
    host = host.strip("[]")
    number = int(digits) if digits.isascii() and digits.isdigit() else 0
    if not 0 < number < 65536:
        return CheckResult(check, FAIL, f"{port!r} is no port", remedy="write a number from 1 to 65535, or host:number")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as listener:
            if sys.platform == "win32":
                # Otherwise Windows lets two programs listen, where one of them listens on a single address.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                # Without it a port whose last connection ended a minute ago counts as taken.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, number))
    except OSError as error:
        words = error.strerror or str(error)
        if error.errno in _TAKEN:
            remedy = "end the program that holds it, or choose another port"
            return CheckResult(check, FAIL, f"taken{_holder(number)} ({words})", remedy=remedy)
        return CheckResult(check, FAIL, f"cannot be listened on ({words})", remedy="is the host an address of this PC?")
    return CheckResult(check, PASS, "free")


def _holder(port: int) -> str:
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr[1] == port and connection.status == psutil.CONN_LISTEN and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return ""
