"""Health of a host's NVIDIA GPUs as its driver tells it; nothing where there is no driver."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

IDENTITY = ("index", "name", "uuid", "driver_version", "memory.total", "memory.used", "temperature.gpu")
HEALTH = (
    ("ecc.errors.uncorrected.volatile.total", "ecc.errors.corrected.volatile.total"),
    ("remapped_rows.failure", "remapped_rows.pending"),
    ("pcie.link.width.current", "pcie.link.width.max"),
    # The second name is what drivers before 535 call the first.
    ("clocks_event_reasons.active",),
    ("clocks_throttle_reasons.active",),
)
"""Asked for one group at a time: the tool refuses a whole question for one field that it does not know."""

SLOWED = {0x08: "hardware slowdown", 0x20: "software thermal", 0x40: "hardware thermal", 0x80: "power brake"}
"""Bits of the reasons for lower clocks that mean trouble; idling and a power cap are no trouble."""

TOPOLOGY_CHARACTERS = 4000
XID_LINES = 5
SECONDS = 20


def gpu_facts() -> dict[str, Any]:
    """GPUs, driver, CUDA, how the GPUs are linked, and the driver's last errors; `gpus` is empty without a driver."""
    rows = _query(IDENTITY)
    if not rows:
        return {"gpus": []}
    for fields in HEALTH:
        for row, more in zip(rows, _query(fields), strict=False):
            row |= more
    version = re.search(r"CUDA Version:\s*([\d.]+)", _output("nvidia-smi"))
    return {
        "gpus": [_gpu(row) for row in rows],
        "driver": rows[0]["driver_version"],
        "cuda": version.group(1) if version else None,
        "topology": _output("nvidia-smi", "topo", "-m")[:TOPOLOGY_CHARACTERS],
        "xid": xid_lines(_output("dmesg")),
    }


def read_table(text: str, fields: tuple[str, ...]) -> list[dict[str, str]]:
    """The tool's CSV without header and units: one row a GPU; empty where it is not such a table."""
    rows = [[cell.strip() for cell in line.split(", ")] for line in text.splitlines() if line.strip()]
    return [dict(zip(fields, row, strict=True)) for row in rows if len(row) == len(fields)]


def slowed_by(reasons: str) -> list[str]:
    """The troubles among the reasons for lower clocks, a number such as 0x0000000000000040."""
    try:
        bits = int(reasons, 16)
    except ValueError:
        return []
    return [words for bit, words in SLOWED.items() if bits & bit]


def xid_lines(log: str) -> list[str]:
    """The last errors that the driver wrote to the kernel's log."""
    return [line.strip() for line in log.splitlines() if "NVRM: Xid" in line][-XID_LINES:]


def _gpu(row: dict[str, str]) -> dict[str, Any]:
    """One GPU by our names; a number that the tool doesn't give is None."""
    reasons = row.get("clocks_event_reasons.active") or row.get("clocks_throttle_reasons.active", "")
    return {
        "index": _number(row["index"]),
        "name": row["name"],
        "uuid": row["uuid"],
        "memory_mib": _number(row["memory.total"]),
        "memory_used_mib": _number(row["memory.used"]),
        "temperature_celsius": _number(row["temperature.gpu"]),
        "ecc_uncorrected": _number(row.get("ecc.errors.uncorrected.volatile.total")),
        "ecc_corrected": _number(row.get("ecc.errors.corrected.volatile.total")),
        "remapping_failed": row.get("remapped_rows.failure", "").lower() in ("1", "yes"),
        "remapping_pending": row.get("remapped_rows.pending", "").lower() in ("1", "yes"),
        "pcie_width": _number(row.get("pcie.link.width.current")),
        "pcie_width_most": _number(row.get("pcie.link.width.max")),
        "slowed_by": slowed_by(reasons),
    }


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _query(fields: tuple[str, ...]) -> list[dict[str, str]]:
    text = _output("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")
    return read_table(text, fields)


def _output(*words: str) -> str:
    """What a tool prints; nothing where it is not there or may not be asked."""
    tool = shutil.which(words[0])
    if tool is None:
        return ""
    try:
        done = subprocess.run([tool, *words[1:]], capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
