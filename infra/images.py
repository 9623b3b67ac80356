"""Builds the container images: `python -m infra.images cpu|cuda`, with docker, podman or buildah, whichever is there.

docker/versions.env says which base images and versions; arguments after `--` go to the engine as they are.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.errors import RunFailure, SlipwayError, UserError

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ROOT / "docker" / "versions.env"
KINDS = ("cpu", "cuda")
BUILD = {
    "docker": ("docker", "build"),
    "podman": ("podman", "build", "--layers"),
    "buildah": ("buildah", "bud", "--layers"),
}
"""Engine -> its command, in the order in which they are looked for."""

INSTALL = "install one: https://docs.docker.com/engine/install, or on Debian and Ubuntu: apt install podman"


@dataclass(frozen=True)
class Built:
    """An image as its engine describes it; the size is that of its layers unpacked."""

    image: str
    engine: str
    id: str
    layers: int
    size_mib: int
    build_seconds: float

    def sentence(self) -> str:
        """For a person."""
        return (
            f"{self.image}: {self.size_mib:,} MiB in {self.layers} layers, {self.build_seconds:.0f} s ({self.engine})"
        )


def read_versions(path: Path = VERSIONS) -> dict[str, str]:
    """Reads `NAME=value` lines; `#` starts a comment line.

    Raises:
        UserError: The file is missing, or a line is none of these.
    """
    if not path.is_file():
        raise UserError(
            f"no file {path}",
            expected="a checkout of the project: images are built from its sources",
            action="clone the project and run this there",
        )
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not re.fullmatch(r"[A-Z][A-Z_]*", name):
            raise UserError(f"{path}, line {number}: {line!r}", expected="NAME=value", action="correct the line")
        found[name] = value.strip()
    return found


def dockerfile(kind: str) -> Path:
    """The file that a kind of image is built from."""
    return ROOT / "docker" / f"Dockerfile.{kind}"


def declared_arguments(text: str) -> list[str]:
    """The names of a Dockerfile's build arguments, each once."""
    return list(dict.fromkeys(re.findall(r"^ARG ([A-Z_]+)", text, re.M)))


def find_engine(wanted: str | None) -> str:
    """The engine's name.

    Raises:
        UserError: It is not there, or none is, or its daemon doesn't answer.
    """
    there = [name for name in ([wanted] if wanted else BUILD) if shutil.which(name)]
    found = next((name for name in there if _answers(name)), None)
    if found:
        return found
    if there:
        raise UserError(
            f"{' and '.join(there)} on this machine, but no answer from its daemon",
            expected="an engine that builds images: docker, podman or buildah",
            action="start the daemon (`docker info` says what is wrong), or install podman",
        )
    raise UserError(
        f"no {wanted}" if wanted else f"no {' and no '.join(BUILD)} on this machine",
        expected="an engine that builds images: docker, podman or buildah",
        action=INSTALL,
    )


def _answers(engine: str) -> bool:
    """Whether it works: docker's command may be there without its daemon."""
    command = [engine, "info"] if engine == "docker" else [engine, "--version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def build_command(kind: str, engine: str, tag: str, versions: Mapping[str, str], more: Sequence[str]) -> list[str]:
    """The engine's command line, to be run in the project's root."""
    file = dockerfile(kind)
    known = {**versions, **_origin()}
    command = [*BUILD[engine], "--file", str(file.relative_to(ROOT)), "--tag", tag]
    for name in declared_arguments(file.read_text(encoding="utf-8")):
        if name in known:
            command += ["--build-arg", f"{name}={known[name]}"]
    return [*command, *more, "."]


def build(kind: str, engine: str, tag: str, versions: Mapping[str, str], more: Sequence[str] = ()) -> Built:
    """Builds an image; what the engine says goes to stderr.

    Raises:
        RunFailure: The engine failed.
    """
    command = build_command(kind, engine, tag, versions, more)
    started = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False).returncode
    if code:
        raise RunFailure(
            f"{engine} ended with exit code {code} while it built {tag}",
            expected="an image",
            action="read the engine's lines above (an image that cannot be pulled, a full disk)",
        )
    return Built(tag, engine, *_described(engine, tag), build_seconds=round(time.monotonic() - started, 1))


def _described(engine: str, tag: str) -> tuple[str, int, int]:
    """Id, number of layers, and size in MiB."""
    if engine == "buildah":
        (row,) = _json([engine, "images", "--json", tag])
        image = _json([engine, "inspect", "--type", "image", tag])
        return image["FromImageID"], len(image["OCIv1"]["rootfs"]["diff_ids"]), round(_bytes(row["size"]) / 2**20)
    (image,) = _json([engine, "image", "inspect", tag])
    return image["Id"].removeprefix("sha256:"), len(image["RootFS"]["Layers"]), round(image["Size"] / 2**20)


def _json(command: list[str]) -> Any:
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _bytes(words: str) -> float:
    """buildah's `2.1 GB` as a number."""
    number, unit = words.split()
    return float(number) * {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit.upper()]


def _origin() -> dict[str, str]:
    """What the labels say of the sources."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    found = subprocess.run(git, capture_output=True, text=True, check=False) if shutil.which("git") else None
    revision = found.stdout.strip() if found and found.returncode == 0 else ""
    return {"VERSION": project["version"], "REVISION": revision}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="infra.images", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--engine", choices=list(BUILD), help="default: the first that is there")
    parser.add_argument("--tag", help="default: slipway:KIND")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="instead of a line of versions.env"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Our own arguments, and the engine's after `--`."""
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]


def main(words: Sequence[str] | None = None) -> int:
    """Builds one image and says what became of it."""
    own, more = _split(sys.argv[1:] if words is None else list(words))
    arguments = _parser().parse_args(own)
    try:
        versions = read_versions()
        for word in arguments.set:
            name, equals, value = word.partition("=")
            if not equals or name not in versions:
                raise UserError(
                    f"--set {word}", expected=f"NAME=VALUE with one of {', '.join(versions)}", action="correct the name"
                )
            versions[name] = value
        engine = find_engine(arguments.engine)
        tag = arguments.tag or f"slipway:{arguments.kind}"
        built = build(arguments.kind, engine, tag, versions, more)
    except SlipwayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(vars(built)) if arguments.json else built.sentence())
    return 0


if __name__ == "__main__":
    sys.exit(main())
