"""Sets up the project's own environment in .venv; needs only the standard library. Called by `make setup`.

Everything is installed from requirements/lock.txt. A second call finds the stamp of the first and does nothing. On a
remote host `--venv` and `--extensions` put it beside the synced code, which is then imported from there.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements" / "lock.txt"
VENV = ROOT / ".venv"
STAMP = "slipway-setup"
EXTENSIONS = ROOT / ".cache" / "torch_extensions"
PYTHON_VERSION = (3, 11)
GIB = 1 << 30
ONLINE = "check the network and pip's index settings (`pip config list`), then `make setup` again"
FREE_GIB = {"cpu": 6, "default": 12}
# Not in the lock: what installs the rest, and the libraries that a CUDA build of torch brings.
NOT_LOCKED = re.compile(r"(pip|slipway|uv|triton|nvidia-.*|cuda-.*)==|-e |.* @ ", re.IGNORECASE)


class SetupError(Exception):
    """What is wrong, what was expected, what to do."""

    def __init__(self, found: str, expected: str, action: str) -> None:
        super().__init__(f"Found: {found}\nExpected: {expected}\nDo: {action}")


def check_python() -> None:
    """Checks the interpreter and that it can make virtual environments."""
    version = sys.version_info[:2]
    if version != PYTHON_VERSION:
        raise SetupError(
            f"Python {version[0]}.{version[1]} at {sys.executable}",
            "Python 3.11: the versions in requirements/lock.txt were tried together on it",
            "install Python 3.11 (Debian: python3.11 python3.11-venv; elsewhere pyenv or uv), then "
            "`make setup PYTHON=path/to/python3.11`",
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise SetupError(
            f"{sys.executable} cannot make virtual environments",
            "the modules venv and ensurepip",
            "on Debian and Ubuntu: apt install python3.11-venv",
        ) from None


def check_compiler() -> None:
    """Checks that a C++17 compiler with OpenMP and Python's headers are there, by compiling a few lines."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        raise SetupError(
            f"no C++ compiler (looked for {', '.join(names)})",
            "one: DeepSpeed's operators are compiled once during set-up",
            "Debian and Ubuntu: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install",
        )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "try.cpp")
        source.write_text("#include <omp.h>\n#include <optional>\nint main() { return omp_get_max_threads() < 1; }\n")
        command = [compiler, "-std=c++17", "-fopenmp", str(source), "-o", str(Path(folder, "try"))]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        first = next((line for line in result.stderr.splitlines() if "error" in line), "") or "it printed nothing"
        raise SetupError(
            f"{compiler} could not compile a few lines of C++17 with OpenMP: {first}",
            "a working C++ compiler with its standard library and OpenMP",
            "Debian and Ubuntu: apt install g++; or name another one with CXX=...",
        )


def check_disk(torch: str, venv: Path) -> None:
    """Checks that there is room for the environment."""
    need = FREE_GIB["cpu" if torch == "cpu" else "default"]
    place = next(folder for folder in (venv, *venv.parents) if folder.exists())
    free = shutil.disk_usage(place).free / GIB
    if free < need:
        raise SetupError(
            f"{free:.1f} GiB free on the disk that holds {place}",
            f"at least {need} GiB ({'PyTorch for CPU' if torch == 'cpu' else 'PyTorch with CUDA'} and the rest)",
            "free some space, or move the project to a larger disk"
            + ("" if torch == "cpu" else "; without a GPU `make setup TORCH=cpu` needs half as much"),
        )


def stamp_text(torch: str) -> str:
    """Returns a finished set-up's stamp: it changes with the lock, the interpreter and the choice of torch."""
    lines = [hashlib.sha256(LOCK.read_bytes()).hexdigest(), sys.version.split()[0], torch]
    lines.append(hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest())
    return "\n".join(lines) + "\n"


def run(command: list[str], doing: str, action: str) -> None:
    """Runs a command quietly; what it printed is shown only when it fails."""
    print(f"{doing} ...", flush=True)
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, check=False)
    if result.returncode:
        tail = "\n  ".join(result.stdout.strip().splitlines()[-12:])
        raise SetupError(f"{doing}: exit code {result.returncode}\n  {tail}", "it to succeed", action)


def locked_torch() -> str:
    """Returns the lock's line for torch, as in `torch==2.13.0`."""
    return next(line.strip() for line in LOCK.read_text().splitlines() if line.startswith("torch=="))


def install_torch(python: str, torch: str) -> None:
    """Installs torch first: it alone has dependencies (the CUDA libraries) that the lock leaves to it."""
    pin = locked_torch()
    if torch != "cpu":
        run([python, "-m", "pip", "install", "--constraint", str(LOCK), pin], f"Installing {pin}", ONLINE)
        return
    try:
        run([python, "-m", "pip", "install", "--constraint", str(LOCK), f"{pin}+cpu"], f"Installing {pin}+cpu", ONLINE)
    except SetupError:
        # The usual index has no CPU build for Linux; uv knows where PyTorch publishes its own.
        run([python, "-m", "pip", "install", "uv"], "Installing uv to find PyTorch's CPU build", ONLINE)
        uv = [str(Path(python).with_name("uv")), "pip", "install", "--python", python, "--torch-backend", "cpu"]
        run([*uv, "--constraint", str(LOCK), pin], f"Installing the CPU build of {pin}", ONLINE)


def install(torch: str, venv: Path, itself: bool) -> None:
    """Makes the environment and fills it; `itself`: with this checkout, as `slipway` and importable from anywhere."""
    check_disk(torch, venv)
    python = str(venv / "bin" / "python")
    if not Path(python).exists():
        run([sys.executable, "-m", "venv", str(venv)], f"Making {venv.name}", f"remove {venv} and try again")
    install_torch(python, torch)
    pip = [python, "-m", "pip", "install", "--no-deps"]
    count = sum(1 for line in LOCK.read_text().splitlines() if "==" in line)
    run([*pip, "-r", str(LOCK)], f"Installing {count} packages from requirements/lock.txt (2 to 10 minutes)", ONLINE)
    remove_strangers(python)
    if itself:
        run([*pip, "--no-build-isolation", "-e", str(ROOT)], "Installing slipway itself", "read the lines above")


def installed_pins(python: str) -> list[str]:
    """Returns the `name==version` lines of an environment that belong in a lock."""
    freeze = [python, "-m", "pip", "freeze", "--all"]
    lines = subprocess.run(freeze, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if "==" in line and not NOT_LOCKED.match(line)]


def remove_strangers(python: str) -> None:
    """Uninstalls what an earlier lock brought and this one does not name, so that the environment is the lock's."""
    locked = {line.split("==")[0].lower() for line in LOCK.read_text().splitlines()}
    names = [pin.split("==")[0] for pin in installed_pins(python)]
    strangers = [name for name in names if name.lower() not in locked]
    if strangers:
        command = [python, "-m", "pip", "uninstall", "--yes", *strangers]
        run(command, f"Removing what the lock no longer names ({', '.join(strangers)})", "remove .venv and try again")


def build_extensions(venv: Path, folder: Path) -> None:
    """Compiles DeepSpeed's operators into a folder."""
    os.environ["TORCH_EXTENSIONS_DIR"] = str(folder)
    run(
        [str(venv / "bin" / "python"), "-m", "recipes.extensions"],
        "Compiling DeepSpeed's operators for a portable instruction set (about 2 minutes)",
        "read the compiler's lines above; `make clean setup` starts afresh",
    )


def main() -> int:
    """Sets up, or says that everything is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", choices=["default", "cpu"], default="default", help="which build of PyTorch")
    parser.add_argument("--venv", type=Path, default=VENV, help="where the environment lies")
    parser.add_argument("--extensions", type=Path, default=EXTENSIONS, help="where compiled operators lie")
    chosen = parser.parse_args()
    torch, stamp = chosen.torch, chosen.venv / STAMP
    try:
        check_python()
        wanted = stamp_text(torch)
        # `make demo` after `make setup TORCH=cpu` must not install the other build: only an explicit choice changes it.
        done = stamp.read_text() if stamp.exists() else ""
        if torch == "default" and done == stamp_text("cpu"):
            return 0
        if done == wanted:
            return 0
        check_compiler()
        stamp.unlink(missing_ok=True)
        install(torch, chosen.venv, itself=chosen.venv == VENV)
        build_extensions(chosen.venv, chosen.extensions)
        stamp.write_text(wanted)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    print("Set-up is done. Next: `make demo`, or `.venv/bin/slipway --help`.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
