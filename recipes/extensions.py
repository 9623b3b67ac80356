"""Compiled extensions of DeepSpeed, built once for a portable instruction set.

DeepSpeed compiles its CPU operators on first use with `-march=native`: half a minute and more in the middle of a first
step, and a library that dies with an illegal instruction on another host that shares the folder. `make setup` and the
images build them beforehand instead, and every use goes through `portable`, since other flags would compile them again.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OPERATORS = ("ShareMemCommBuilder", "CPUAdamBuilder")
"""DeepSpeed's builders: all-reduce through shared memory, and Adam for offloaded optimizer state."""

_FLAGS = {
    # AVX2 and FMA: every x86-64 server and laptop since about 2015.
    "x86_64": ("-march=x86-64-v3", "-D__AVX256__"),
    "aarch64": ("-march=armv8-a", "-D__NEON__"),
}


def extensions_folder() -> Path:
    """Returns where the compiled extensions lie: `TORCH_EXTENSIONS_DIR`, or the project's cache."""
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path(__file__).parents[1] / ".cache" / "torch_extensions")


@contextmanager
def portable() -> Iterator[None]:
    """Lets DeepSpeed's builders use portable flags and the project's cache while the block runs."""
    os.environ["TORCH_EXTENSIONS_DIR"] = str(extensions_folder())
    from deepspeed.ops.op_builder.builder import OpBuilder

    arch, simd = _FLAGS.get(platform.machine(), ("", "-D__SCALAR__"))
    saved = OpBuilder.cpu_arch, OpBuilder.simd_width
    OpBuilder.cpu_arch, OpBuilder.simd_width = (lambda self: arch), (lambda self: simd)
    try:
        yield
    finally:
        OpBuilder.cpu_arch, OpBuilder.simd_width = saved


def build(name: str) -> float:
    """Compiles one operator if it is not compiled yet, loads it, and returns the seconds that took.

    Args:
        name: A builder's name, one of OPERATORS.
    """
    from deepspeed.ops import op_builder

    builder = getattr(op_builder, name, None) or _cpu_builder(name)
    # A killed build leaves a lock that later builds would wait for until the end of time.
    (extensions_folder() / builder.NAME / "lock").unlink(missing_ok=True)
    started = time.perf_counter()
    builder().load(verbose=False)
    return time.perf_counter() - started


def _cpu_builder(name: str) -> Any:
    from deepspeed.ops.op_builder import cpu

    return getattr(cpu, name)


def main() -> int:
    """Builds every operator; `python -m recipes.extensions`."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("MAX_JOBS", str(os.cpu_count() or 1))
    if shutil.which("ninja") is None:
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with portable():
        for name in OPERATORS:
            print(f"  {name.removesuffix('Builder')}: {build(name):.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
