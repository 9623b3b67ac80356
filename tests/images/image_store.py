"""A store of container images for tests, apart from the machine's own, and the base image where none can be pulled.

Registries of images can't be reached everywhere. Debian's packages usually can: a small Debian with Python 3.11 is made
of them and takes the name of the Python image that docker/versions.env pins, in this store only. The Dockerfile is then
built as it is. From the real base it differs in that Python is Debian's, and lies in /usr instead of /usr/local.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path("/var/tmp/slipway-image-tests")
TOOLS = ("buildah", "podman", "runc", "mmdebstrap")
PACKAGES = "ca-certificates,python3,python3-pip,python3-venv,libpython3-dev"
HOOK = 'ln -s python3 "$1/usr/bin/python" && rm -f "$1"/usr/lib/python3.11/EXTERNALLY-MANAGED'
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
runtime = "runc"
"""
STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = "{folder}/storage"
runroot = "/run/slipway-image-tests"
"""


def missing_parts() -> list[str]:
    """What this machine lacks to build images and run containers."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return missing + (["root"] if os.geteuid() else [])


class ImageStore:
    """Images and containers under a folder of their own."""

    def __init__(self) -> None:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / "containers.conf").write_text(CONTAINERS_CONF)
        (FOLDER / "storage.conf").write_text(STORAGE_CONF.format(folder=FOLDER))
        # The engines' own variables, so that what starts them needs no options for tests.
        self.environment = {
            **os.environ,
            "CONTAINERS_CONF": str(FOLDER / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(FOLDER / "storage.conf"),
            "BUILDAH_ISOLATION": "chroot",
        }

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Two sessions of tests take turns."""
        with (FOLDER / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def run(self, *command: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a command of an engine in this store."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=timeout
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done

    def ensure_base(self, image: str) -> None:
        """Make the stand-in for the Python image, unless it is there as these packages make it."""
        recipe = hashlib.sha256(f"{PACKAGES}{HOOK}".encode()).hexdigest()[:12]
        if self.run("podman", "image", "exists", f"localhost/slipway-test-base:{recipe}", check=False).returncode == 0:
            self.run("podman", "tag", f"localhost/slipway-test-base:{recipe}", image)
            return
        tar = FOLDER / "base.tar"
        make = ["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", f"--customize-hook={HOOK}"]
        self.run(*make, "bookworm", str(tar), timeout=600)
        self.run("podman", "import", str(tar), f"localhost/slipway-test-base:{recipe}")
        self.run("podman", "tag", f"localhost/slipway-test-base:{recipe}", image)
        tar.unlink()

    def pip_mounts(self) -> list[str]:
        """Mounts that let pip in a build find packages where pip on this machine finds them."""
        settings = self._pip_settings()
        lines = [f"{key} = {value}" for key, value in sorted(settings.items())]
        (FOLDER / "pip.conf").write_text("[global]\n" + "\n".join(lines) + "\n")
        words = [word.removeprefix("file://") for value in settings.values() for word in value.split()]
        paths = {Path(word) for word in words if word.startswith("/") and Path(word).exists()}
        # An index is a folder of pages, which link to files beside it.
        paths = {path.parent if path.name == "simple" else path for path in paths}
        paths = {path for path in paths if not any(other in path.parents for other in paths)}
        mounts = [f"{FOLDER / 'pip.conf'}:/etc/pip.conf:ro"]
        mounts += [f"{path}:{path}:ro" for path in sorted(paths | ({CERTIFICATES} if CERTIFICATES.exists() else set()))]
        return [word for mount in mounts for word in ("--volume", mount)]

    def finds_torch(self) -> bool:
        """Whether pip here has folders with packages of its own, so that PyTorch's index need not be asked."""
        return "find-links" in self._pip_settings()

    def _pip_settings(self) -> dict[str, str]:
        """pip's own view of its configuration; variables win over files, as pip has it."""
        found: dict[str, str] = {}
        for line in self.run("python3", "-m", "pip", "config", "list").stdout.splitlines():
            key, _, value = line.partition("=")
            name, value = key.split(".")[-1], value.replace("\\n", " ")
            if key.startswith((":env:", "global.")) and (key.startswith(":env:") or name not in found):
                found[name] = value.strip("'\"")
        return found
