"""What travels to hosts: pieces of files with checksums, each known by a name that changes with its content."""

from __future__ import annotations

import glob
import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.errors import RunFailure, UserError
from kit.files import sha256_file
from kit.run.directory import RunDirectory
from kit.run.manifest import Parent, parent_path
from launch.job import JobDescription
from launch.recipe_files import ROOT

ROOMS = ("kit", "data_prep", "recipes", "launch", "reports", "infra")
NOT_NEEDED = ("tests/", "docs/", "benchmarks/", "docker/", ".ci/")
OF_A_RUN = ("config.yaml", "target.yaml", "manifest.json")
OF_A_PARENT = (*OF_A_RUN, "events.jsonl")


@dataclass(frozen=True)
class Piece:
    """Files that belong together on a host.

    Attributes:
        name: Its stamp's name there: a host that has the stamp has the files.
        files: Path there, below the piece's root -> file here.
        with_runs: Whether its root is the folder of runs (which may be shared by all hosts), not the host's workdir.
    """

    name: str
    files: Mapping[str, Path]
    with_runs: bool = False

    def sums(self) -> str:
        """Its files' checksums, as `sha256sum --check` reads them."""
        return "".join(f"{sha256_file(path)}  {place}\n" for place, path in sorted(self.files.items()))

    def add_to(self, tar: tarfile.TarFile, place: str) -> None:
        """Add one of its files to an archive."""
        path = self.files[place]
        with path.open("rb") as content:
            facts = os.fstat(content.fileno())
            tar.addfile(_entry(place, facts.st_size, 0o755 if facts.st_mode & 0o100 else 0o644), content)


def write_pieces(
    archive: Path, pieces: Sequence[Piece], sums: Sequence[str], places: Sequence[Collection[str]]
) -> None:
    """Write a tar archive of some files of pieces, with the checksums of all of each under `stamps/NAME.sums`."""
    with tarfile.open(archive, "w") as tar:
        for piece, text, wanted in zip(pieces, sums, places, strict=True):
            for place in sorted(wanted):
                piece.add_to(tar, place)
            _add_bytes(tar, f"stamps/{piece.name}.sums", text.encode())


def source_piece() -> tuple[Piece, str]:
    """The project's code, and the folder below a workdir where it goes."""
    files = {str(path.relative_to(ROOT)): path for path in _source_files()}
    marks = [f"{sha256_file(path)} {os.access(path, os.X_OK)} {place}" for place, path in sorted(files.items())]
    digest = hashlib.sha256("\n".join(marks).encode()).hexdigest()[:16]
    folder = f"source/{digest}"
    return Piece(f"source-{digest}", {f"{folder}/{place}": path for place, path in files.items()}), folder


def parent_pieces(job: JobDescription) -> Iterator[Piece]:
    """What a job reads of its parents, beside the run itself.

    Raises:
        RunFailure: A parent has gone.
    """
    known = {parent.run_id: parent for parent in RunDirectory(job.run).manifest().parents.values()}
    for folder in job.parents:
        if not (folder / "manifest.json").is_file():
            raise RunFailure(
                f"the parent run {folder.name} is not at {folder}",
                expected="the finished run that this one was planned with",
                action="put it back, or start again with `--parent NAME=RUN`",
            )
        paths = [folder / name for name in OF_A_PARENT if (folder / name).is_file()]
        paths += sorted(path for path in (folder / "artifacts").rglob("*") if path.is_file())
        files = {f"runs/{folder.name}/{path.relative_to(folder)}": path for path in paths}
        yield Piece(f"parent-{folder.name}-{_mark(known.get(folder.name), folder)}", files, with_runs=True)


def ancestor_pieces(job: JobDescription) -> Iterator[Piece]:
    """What describes the parents' own parents: stages look there for what was trained on, and read no artifacts."""
    seen = {job.run, *job.parents}
    waiting = list(job.parents)
    while waiting:
        run = RunDirectory(waiting.pop())
        for parent in run.manifest().parents.values():
            folder = parent_path(run, parent)
            if folder in seen or not (folder / "manifest.json").is_file():
                continue
            seen.add(folder)
            waiting.append(folder)
            files = {f"runs/{folder.name}/{name}": folder / name for name in OF_A_PARENT if (folder / name).is_file()}
            yield Piece(f"ancestor-{folder.name}-{_mark(parent, folder)}", files, with_runs=True)


def checkpoint_piece(job: JobDescription) -> Piece | None:
    """The newest whole checkpoint that is here: of a run that goes on where its first hosts are no more.

    Hosts that have a newer one of their own go on from that.
    """
    whole = sorted(path.parent for path in (job.run / "checkpoints").glob("step-*/COMPLETE"))
    if not whole:
        return None
    paths = [path for path in sorted(whole[-1].rglob("*")) if path.is_file()]
    files = {f"runs/{job.id}/{path.relative_to(job.run)}": path for path in paths}
    mark = sha256_file(whole[-1] / "COMPLETE")[:16]
    return Piece(f"checkpoint-{job.id}-{whole[-1].name}-{mark}", files, with_runs=True)


def input_piece(job: JobDescription) -> tuple[Piece | None, list[str]]:
    """The input files that stand below the working directory, and the absolute paths that hosts must have.

    Raises:
        UserError: An input leads out of the working directory by `..`.
    """
    here = job.working_directory or Path.cwd()
    files: dict[str, Path] = {}
    absolute: list[str] = []
    for word in job.inputs:
        if "://" in word:
            continue
        if Path(word).is_absolute():
            absolute.append(word)
            continue
        if ".." in Path(word).parts:
            raise UserError(
                f"{job.id}: the input {word} leads out of the working directory",
                expected="a path below it, which is copied to the hosts, or an absolute one that every host has",
                action="start from a folder above the input, or write the path on the hosts",
            )
        # What is not here may be a sample inside the code, which travels with it.
        for path in map(Path, sorted(glob.glob(str(here / word)))):
            found = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            files |= {f"work/{file.relative_to(here)}": file for file in found}
    if not files:
        return None, absolute
    facts = [f"{place} {path.stat().st_size} {path.stat().st_mtime_ns}" for place, path in sorted(files.items())]
    mark = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    return Piece(f"inputs-{mark}", files, with_runs=True), absolute


def run_archive(run: Path) -> bytes:
    """A run's own few files as a tar archive in memory."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in OF_A_RUN:
            _add_bytes(tar, name, (run / name).read_bytes())
    return stream.getvalue()


def _source_files() -> list[Path]:
    """The tracked files of a checkout and the new ones that git doesn't ignore; or an installation's packages."""
    if (ROOT / ".git").exists():
        words = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"]
        listed = subprocess.run(words, capture_output=True, check=False)
        if listed.returncode == 0:
            names = sorted({name for name in listed.stdout.decode().split("\0") if name})
            wanted = [ROOT / name for name in names if not name.startswith(NOT_NEEDED)]
            return [path for path in wanted if path.is_file()]
    paths = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*"))]
    paths += [*sorted((ROOT / "requirements").glob("*.txt")), ROOT / "pyproject.toml"]
    return [path for path in paths if path.is_file() and "__pycache__" not in path.parts]


def _mark(parent: Parent | None, folder: Path) -> str:
    """Names a parent's content: the digest that the run's manifest holds of it, or else its own manifest's."""
    text = parent.digest if parent else sha256_file(folder / "manifest.json")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_entry(name, len(content), 0o644), io.BytesIO(content))


def _entry(name: str, size: int, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, mode
    return entry
