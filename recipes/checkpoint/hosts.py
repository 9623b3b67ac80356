"""Hosts that share no disk: the files of a checkpoint travel over the process group, so that every host holds it whole.

Any host can then be lost, and a job can go on elsewhere. On a shared disk nothing travels.
"""

from __future__ import annotations

import os
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from recipes.distributed.processes import Processes

CHUNK_BYTES = 16 << 20
ARRIVING = ".arriving"


@dataclass(frozen=True)
class Hosts:
    """Which ranks look after a folder: one on every disk.

    Attributes:
        leaders: The first rank of every disk; rank 0 is one.
        rank: This rank.
        group: The leaders' own gloo group; None where there is one disk.
        neighbours: The ranks that share this rank's disk, its leader first.
    """

    leaders: tuple[int, ...]
    rank: int
    group: dist.ProcessGroup | None
    neighbours: tuple[int, ...]

    @property
    def leads(self) -> bool:
        """Whether this rank looks after its disk."""
        return self.rank in self.leaders

    def share(self, names: Sequence[str]) -> list[str]:
        """This rank's part of some work on the disk, which its neighbours divide; the same names for all of them."""
        return list(names[self.neighbours.index(self.rank) :: len(self.neighbours)])

    def spread(self, folder: Path) -> None:
        """Gives every disk every file that lies under a folder on any of them. *Collective*: the leaders.

        A file that lies on several disks is taken from the lowest rank.
        """
        if self.group is None:
            return
        mine = {str(p.relative_to(folder)): p.stat().st_size for p in _files(folder)}
        held: list[dict[str, int]] = [{} for _ in self.leaders]
        dist.all_gather_object(held, mine, group=self.group)
        for name in sorted({name for files in held for name in files}):
            owner = next(place for place, files in enumerate(held) if name in files)
            if all(name in files for files in held):
                continue
            chunks = self._chunks(folder / name, self.leaders[owner], held[owner][name])
            if name in mine:
                deque(chunks, maxlen=0)
            else:
                _write(folder / name, chunks)

    def _chunks(self, path: Path, owner: int, size: int) -> Iterator[bytes]:
        """A file's bytes, as its owner reads and broadcasts them. *Collective*: the leaders, each to its end."""
        with path.open("rb") if self.rank == owner else nullcontext() as file:
            for start in range(0, size, CHUNK_BYTES):
                length = min(CHUNK_BYTES, size - start)
                read = bytearray(file.read(length)) if file is not None else bytearray(length)
                chunk = torch.frombuffer(read, dtype=torch.uint8)
                dist.broadcast(chunk, owner, group=self.group)
                yield bytes(read)


def find_hosts(folder: Path, processes: Processes) -> Hosts:
    """Finds out which ranks share the disk under a folder. *Collective*: every rank.

    Every host's first rank leaves a mark; whoever sees another's mark shares its disk.
    """
    if processes.world_size == 1:
        return Hosts((0,), 0, None, (0,))
    folder.mkdir(parents=True, exist_ok=True)
    first_here = int(os.environ.get("LOCAL_RANK", processes.rank)) == 0
    mark = f".host-{processes.rank:05d}-{secrets.token_hex(4)}" if first_here else None
    if mark:
        (folder / mark).touch()
    marks = processes.gather_words(mark)
    processes.barrier()
    seen = [rank for rank, name in enumerate(marks) if name and (folder / name).exists()]
    lowest = processes.gather_words(str(min(seen)) if seen else None)
    processes.barrier()
    if mark:
        (folder / mark).unlink(missing_ok=True)
    leaders = tuple(sorted({int(word) for word in lowest if word is not None}))
    # A group of gloo whatever the job's backend is: files lie in the host's memory.
    group = dist.new_group(list(leaders), backend="gloo") if len(leaders) > 1 else None
    neighbours = tuple(rank for rank, word in enumerate(lowest) if word == lowest[processes.rank])
    return Hosts(leaders, processes.rank, group, neighbours)


def _write(path: Path, chunks: Iterator[bytes]) -> None:
    """Writes a file whole or not at all; one that can't be written is still received, or the others would wait."""
    partial = path.with_name(path.name + ARRIVING)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
        os.replace(partial, path)
    finally:
        deque(chunks, maxlen=0)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(ARRIVING))
