"""Reading Debian packages without Debian's tools, and downloading them with apt-get."""

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kit.errors import UserError

AR_MAGIC = b"!<arch>\n"
AR_HEADER_BYTES = 60
WHERE_MOVED_ON = "where the archive has moved on, take that version from the Debian snapshot archive"


@dataclass(frozen=True)
class Member:
    """One regular file of a package."""

    path: str
    content: bytes
    modified_seconds: int


def package_path(folder: Path, package: str, version: str) -> Path | None:
    """The pinned package in `folder`, under any of the names that clients give it; None where it is absent."""
    # apt-get writes the colon of an epoch as %3a; other clients keep or drop it.
    spellings = (version.replace(":", "%3a"), version, version.split(":", 1)[-1])
    paths = [folder / f"{package}_{spelling}_all.deb" for spelling in spellings]
    return next((path for path in paths if path.is_file()), None)


def find_package(folder: Path, package: str, version: str, sha256: str) -> Path:
    """The pinned package in `folder`, after checking its bytes.

    Raises:
        UserError: The package is absent or its bytes are not the pinned ones.
    """
    path = package_path(folder, package, version)
    if path is None:
        near = ", ".join(sorted(p.name for p in folder.glob(f"{package}_*.deb"))) or "no version of it"
        raise UserError(
            f"{near} in {folder}",
            expected=f"{package} {version}",
            action=f"add --download, or run `apt-get download {package}={version}` there; {WHERE_MOVED_ON}",
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != sha256:
        raise UserError(
            f"{path} with sha256 {digest}",
            expected=f"sha256 {sha256}, pinned in sources.toml",
            action="delete the file and download it again",
        )
    return path


def download_package(folder: Path, package: str, version: str) -> None:
    """Put one package version into `folder` with `apt-get download`.

    Raises:
        UserError: apt-get is not on this machine, or does not have that version.
    """
    command = ["apt-get", "download", f"{package}={version}"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(
            "no apt-get on this machine",
            expected="a Debian 12 machine, or the packages already in --packages",
            action="download the packages on a Debian 12 machine and leave --download out",
        ) from None
    if done.returncode != 0:
        last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"`{' '.join(command)}` failed: {last_line}",
            expected="the pinned version in the package archive",
            action=f"run `apt-get update`; {WHERE_MOVED_ON}",
        )


def read_members(deb: Path, wanted: Callable[[str], bool]) -> Iterator[Member]:
    """Regular files of a package whose path (without leading `./`) is `wanted`, in the package's order.

    Raises:
        UserError: The file is not a Debian package that we can read.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(_data_archive(deb)), mode="r|*") as archive:
            for entry in archive:
                path = entry.name.removeprefix("./")
                stream = archive.extractfile(entry) if entry.isreg() and wanted(path) else None
                if stream is not None:
                    yield Member(path, stream.read(), int(entry.mtime))
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(
            f"{deb}: {error}",
            expected="a Debian package with a data.tar",
            action="delete the file and download it again",
        ) from None


def _data_archive(deb: Path) -> bytes:
    """Bytes of the compressed `data.tar` inside the `ar` archive that a package is."""
    raw = deb.read_bytes()
    if not raw.startswith(AR_MAGIC):
        raise ValueError("not an ar archive")
    offset = len(AR_MAGIC)
    while offset + AR_HEADER_BYTES <= len(raw):
        name = raw[offset : offset + 16].decode("ascii", "replace").strip().rstrip("/")
        size = int(raw[offset + 48 : offset + 58])
        offset += AR_HEADER_BYTES
        if name.startswith("data.tar"):
            return raw[offset : offset + size]
        offset += size + size % 2
    raise ValueError("no data.tar inside")
