"""Compiled extensions of DeepSpeed, built once for a portable instruction set.

DeepSpeed compiles its CPU operators on first use with `-march=native`: half a minute and more in the middle of a first
step, and a library that dies with an illegal instruction on another host that shares the folder. `make setup` and the
images build them beforehand instead. Every use goes through `portable`: it loads what was built for these versions and
flags as it is, without a compiler, or else compiles with the same flags.
"""

from __future__ import annotations

import importlib.util
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

_MADE_FOR = "made-for.txt"
"""Beside a compiled operator: the versions and flags it was compiled for."""


def extensions_folder() -> Path:
    """Returns where the compiled extensions lie: `TORCH_EXTENSIONS_DIR`, or the project's cache."""
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path(__file__).parents[1] / ".cache" / "torch_extensions")


@contextmanager
def portable() -> Iterator[None]:
    """Lets DeepSpeed's builders use what is compiled already, or portable flags, while the block runs."""
    os.environ["TORCH_EXTENSIONS_DIR"] = str(extensions_folder())
    from deepspeed.ops.op_builder.builder import OpBuilder

    for name in OPERATORS:
        _adopt(_builder(name))
    arch, simd = _flags()
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
    builder = _builder(name)
    # A killed build leaves a lock that later builds would wait for until the end of time.
    (extensions_folder() / builder.NAME / "lock").unlink(missing_ok=True)
    started = time.perf_counter()
    builder().load(verbose=False)
    (extensions_folder() / builder.NAME / _MADE_FOR).write_text(_made_for())
    return time.perf_counter() - started


def _builder(name: str) -> Any:
    from deepspeed.ops.op_builder import cpu

    return getattr(cpu, name)


def _flags() -> tuple[str, str]:
    return _FLAGS.get(platform.machine(), ("", "-D__SCALAR__"))


def _made_for() -> str:
    import deepspeed
    import torch

    return f"torch {torch.__version__}\ndeepspeed {deepspeed.__version__}\n{' '.join(_flags())}\n"


def _adopt(builder: Any) -> None:
    """Gives DeepSpeed an operator that `build` made for these versions; its own loader would look for a compiler."""
    folder = extensions_folder() / builder.NAME
    stamp, library = folder / _MADE_FOR, folder / f"{builder.NAME}.so"
    if builder.NAME in builder._loaded_ops or not stamp.exists() or stamp.read_text() != _made_for():
        return
    spec = importlib.util.spec_from_file_location(builder.NAME, library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    builder._loaded_ops[builder.NAME] = module


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
