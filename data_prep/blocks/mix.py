"""Sources by weight: a quarter of one, two and a half times another; chosen by hash, so that a run can be repeated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from copy import deepcopy
from fnmatch import fnmatchcase

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_prep.blocks.config import MixConfig, SourceConfig
from data_prep.ledger import REASON

SOURCE = "source"  # in the metadata: the name of the document's source
COPY = "copy"  # 1 for the second copy of a document, 2 for the third ...


class Mix(PipelineStep):
    """Gives every document as many copies as the weight of its source says.

    The source is the first whose pattern matches the document's `file`; documents of no source come once. How often a
    document comes depends on the seed, its identifier and its text, and on nothing else. Documents that are left out
    have the reason not_sampled.
    """

    type = "MIX"
    name = "mix"

    def __init__(self, config: MixConfig) -> None:
        super().__init__()
        self.config = config

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield every document as often as it is to come."""
        for document in data:
            copies = self._copies(document)
            if not copies:
                document.metadata[REASON] = "not_sampled"
                continue
            others = [deepcopy(document) for _ in range(copies - 1)]  # later blocks may change the first
            yield document
            for count, other in enumerate(others, 1):
                other.metadata[COPY] = count
                yield other

    def _copies(self, document: Document) -> int:
        found = self._source(str(document.metadata.get("file") or ""))
        if found is None:
            return 1
        name, source = found
        document.metadata[SOURCE] = name
        whole, rest = divmod(source.weight, 1)
        return int(whole) + (rest > 0 and _chance(self.config.seed, document) < rest)

    def _source(self, file: str) -> tuple[str, SourceConfig] | None:
        matching = ((name, source) for name, source in self.config.sources.items() if fnmatchcase(file, source.files))
        return next(matching, None)


def _chance(seed: int, document: Document) -> float:
    """A number in [0, 1) that the document and the seed decide."""
    named = json.dumps([seed, str(document.id)]).encode()
    hashed = hashlib.blake2b(named + document.text.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(hashed.digest(), "big") / 2**64
