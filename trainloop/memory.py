"""How much memory there is, and bytes for people."""

import pathlib
import re


def free_memory():
    """Bytes that can be had without swapping, in this container; None where the system does not tell."""
    limits = [_of_machine(), _of_container()]
    return min((limit for limit in limits if limit is not None), default=None)


def _of_machine():
    text = _read("/proc/meminfo")
    found = text and re.search(r"MemAvailable:\s+(\d+)", text)
    return int(found[1]) * 1024 if found else None


def _of_container():
    limit, used, details = (_read(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current", "stat"))
    if not (limit and used and limit.strip().isdecimal()):
        return None
    # Files that were read count as used, and go when memory is asked for.
    cached = re.search(r"^inactive_file (\d+)$", details or "", re.MULTILINE)
    return int(limit) - int(used) + (int(cached[1]) if cached else 0)


def _read(path):
    try:
        return pathlib.Path(path).read_text(encoding="ascii")
    except OSError:
        return None


def in_words(nbytes):
    """Bytes for people: '4 B', '12.5 MiB'."""
    if nbytes < 1000:
        return f"{nbytes:.0f} B"
    size, unit = nbytes / 2**10, "KiB"
    for larger in ("MiB", "GiB"):
        if size >= 1000:
            size, unit = size / 2**10, larger
    return f"{size:,.1f} {unit}"
