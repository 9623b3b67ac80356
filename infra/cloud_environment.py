"""Sets up .venv-cloud: Ansible with the AWS collection, and an emulator of the EC2 API for tests (`make setup-cloud`).

Everything is pinned by requirements/cloud.txt.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from infra.environment import ONLINE, SetupError, run
from infra.side_environment import SideEnvironment

# The collection is published inside this wheel; unpacked whole it would take 800 MB, of which we need 5.
COMMUNITY_PACKAGE = "ansible==12.3.0"
COMMUNITY_SHA256 = "cd156f82fa87f7a899212b0efa9f7ca3a24d609212de9f78428a572eb01e5414"
COLLECTION = "ansible_collections/amazon/aws/"


CLOUD = SideEnvironment(
    folder=".venv-cloud",
    lock="cloud.txt",
    what="cloud environment",
    holds="Ansible and its AWS collection",
    command="make setup-cloud",
    marks=(COMMUNITY_SHA256,),
)
BIN = CLOUD.programs


def is_ready() -> bool:
    """Whether the environment is there, as the lock has it."""
    return CLOUD.is_ready()


def require() -> Path:
    """Returns the environment's folder of programs.

    Raises:
        UserError: It has not been set up.
    """
    return CLOUD.require()


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


def main() -> int:
    """Sets up, or does nothing where everything is there."""
    ready = "The cloud environment is ready. Next: `slipway up --on aws`, and docs/cloud.md for what it costs."
    return CLOUD.set_up(ready, unpack_collection)


if __name__ == "__main__":
    sys.exit(main())
