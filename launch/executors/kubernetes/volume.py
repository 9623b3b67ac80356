"""`python -m launch.executors.kubernetes.volume VERB ROOT`: what the pod that copies files is told to do.

    digests ROOT    JSON list of paths on one line of stdin -> JSON {file: sha256}, of all files below those paths
    put ROOT        a tar stream on stdin -> files, each complete or absent; JSON {file: sha256} of what was written
    get ROOT        JSON list of files on one line of stdin -> a tar stream

Nothing but the standard library: it runs in whatever image the job runs in.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from launch.host.files import digests


def put(root: Path, stream: BinaryIO) -> dict[str, str]:
    """Unpack a tar stream beside the root's files, then move each into its place."""
    root.mkdir(parents=True, exist_ok=True)
    incoming = root / f".incoming-{secrets.token_hex(4)}"
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            archive.extractall(incoming, filter="data")
        written = digests(incoming, ["."])
        for name in written:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(incoming / name, root / name)
        return written
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def get(root: Path, files: Iterable[str], stream: BinaryIO) -> None:
    """Pack files into a tar stream."""
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        for name in files:
            archive.add(root / name, arcname=name, recursive=False)
    stream.flush()


def main(words: list[str]) -> int:
    """Do one verb."""
    verb, root = words[0], Path(words[1])
    source = sys.stdin.buffer
    if verb == "put":
        print(json.dumps(put(root, source)), flush=True)
    elif verb == "digests":
        print(json.dumps(digests(root, json.loads(source.readline()))), flush=True)
    else:
        get(root, json.loads(source.readline()), sys.stdout.buffer)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
