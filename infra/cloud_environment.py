"""Sets up .venv-cloud: Ansible with the AWS collection, and an emulator of the EC2 API for tests (`make setup-cloud`).

Everything is pinned by requirements/cloud.txt. A second call finds the stamp of the first and does nothing.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from infra.environment import GIB, ONLINE, ROOT, SetupError, check_python, run
from kit.errors import UserError
from kit.files import sha256_file

LOCK = ROOT / "requirements" / "cloud.txt"
VENV = ROOT / ".venv-cloud"
BIN = VENV / "bin"
STAMP = VENV / "slipway-setup"
FREE_GIB = 1
# The collection is published inside this wheel; unpacked whole it would take 800 MB, of which we need 5.
COMMUNITY_PACKAGE = "ansible==12.3.0"
COMMUNITY_SHA256 = "cd156f82fa87f7a899212b0efa9f7ca3a24d609212de9f78428a572eb01e5414"
COLLECTION = "ansible_collections/amazon/aws/"


def stamp_text() -> str:
    """Returns a finished set-up's stamp."""
    return "\n".join((sha256_file(LOCK), COMMUNITY_SHA256, sys.version.split()[0])) + "\n"


def is_ready() -> bool:
    """Whether the environment is there, as the lock has it."""
    return STAMP.is_file() and STAMP.read_text(encoding="utf-8") == stamp_text()


def require() -> Path:
    """Returns the environment's folder of programs.

    Raises:
        UserError: It has not been set up.
    """
    if not is_ready():
        raise UserError(
            f"no finished cloud environment in {VENV}",
            expected="Ansible and its AWS collection, which have an environment of their own",
            action="make it with `make setup-cloud` (about a minute)",
        )
    return BIN


def unpack_collection(python: Path) -> None:
    """Puts amazon.aws where Ansible finds it without a setting: beside ansible-core's own packages."""
    packages = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    with tempfile.TemporaryDirectory() as folder:
        download = [str(python), "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", folder]
        run([*download, COMMUNITY_PACKAGE], f"Downloading {COMMUNITY_PACKAGE} (54 MB) for its AWS collection", ONLINE)
        (wheel,) = Path(folder).glob("ansible-*.whl")
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != COMMUNITY_SHA256:
            raise SetupError(
                f"{wheel.name} with SHA-256 {found}", COMMUNITY_SHA256, "do not use that file; ask your package index"
            )
        shutil.rmtree(packages / COLLECTION, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages, [name for name in archive.namelist() if name.startswith(COLLECTION)])


def install() -> None:
    """Makes .venv-cloud and fills it."""
    free = shutil.disk_usage(ROOT).free / GIB
    if free < FREE_GIB:
        raise SetupError(f"{free:.1f} GiB free on the disk that holds {ROOT}", f"{FREE_GIB} GiB", "free some space")
    # Afresh, so that nothing stays that an earlier lock has brought.
    shutil.rmtree(VENV, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(VENV)], "Making .venv-cloud", "remove .venv-cloud and try again")
    pip = [str(BIN / "python"), "-m", "pip", "install", "--no-deps", "-r", str(LOCK)]
    run(pip, "Installing requirements/cloud.txt", ONLINE)
    unpack_collection(BIN / "python")


def main() -> int:
    """Sets up, or does nothing where everything is there."""
    try:
        check_python()
        if is_ready():
            return 0
        install()
        STAMP.write_text(stamp_text(), encoding="utf-8")
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    print("The cloud environment is ready. Next: `slipway up --on aws`, and docs/cloud.md for what it costs.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
