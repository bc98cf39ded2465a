"""Properties of this machine: processor, memory, system. Uses the standard library alone, so no import can fail."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import subprocess
from pathlib import Path


def describe() -> dict[str, str | int | None]:
    """Describe the machine for reports: system, processor, cores, memory in bytes, Python version."""
    return {
        "system": platform.platform(terse=True),
        "processor": processor_name(),
        "cores": usable_cores(),
        "memory_bytes": memory_bytes()[0],
        "python": platform.python_version(),
    }


def processor_name() -> str:
    """Return the processor's model name, or its architecture if the name is unknown."""
    try:
        if platform.system() == "Linux":
            match = re.search(
                r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
            )
            return match[1] if match else platform.machine()
        if platform.system() == "Darwin":
            return _sysctl("machdep.cpu.brand_string") or platform.machine()
    except OSError:
        return platform.machine()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> tuple[int | None, int | None]:
    """Return the total and the currently available memory; None for a value that the system does not report."""
    try:
        if platform.system() == "Linux":
            text = Path("/proc/meminfo").read_text(encoding="ascii")
            found = {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
            return found.get("MemTotal"), found.get("MemAvailable")
        if platform.system() == "Darwin":
            return int(_sysctl("hw.memsize") or 0) or None, None
        if platform.system() == "Windows":
            return _windows_memory()
    except (OSError, ValueError):
        return None, None
    return None, None


def process_cpu_s(pid: int) -> float | None:
    """Return the CPU time that a process has used, in seconds; None on systems without /proc.

    Raises:
        OSError: The process has ended.
    """
    if not _PROC.exists():
        return None
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def process_bytes(pid: int) -> int | None:
    """Return the resident memory of a process; None on systems without /proc.

    Raises:
        OSError: The process has ended.
    """
    return int(_stat(pid)[21]) * os.sysconf("SC_PAGE_SIZE") if _PROC.exists() else None


def children_bytes(pid: int) -> int | None:
    """Return the total resident memory of a process's children, 0 without any; None on systems without /proc."""
    if not _PROC.exists():
        return None
    total = 0
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a process that ends in the meantime uses no memory
            for child in children.read_text(encoding="ascii").split():
                total += process_bytes(int(child)) or 0
    return total


_PROC = Path("/proc/self/stat")


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the third on; the second is a name that may contain any character."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _sysctl(name: str) -> str:
    return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False).stdout.strip()


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("total", "free", "c", "d", "e", "f", "g")),
    )


def _windows_memory() -> tuple[int, int]:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    kernel32 = getattr(ctypes, "windll").kernel32  # noqa: B009 -- only Windows has it
    kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return status.total, status.free


def own_peak_bytes() -> int | None:
    """Return the peak resident memory of this process; None on Windows, where it is not available."""
    if platform.system() == "Linux":
        # Not getrusage: its peak starts at the size of the process that started this one.
        match = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
        return int(match[1]) * 1024 if match else None
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
