"""Duplicates over the whole input: exact ones by hash, near ones by MinHash (Broder 1997, "On the resemblance and
containment of documents"), both with datatrove's blocks.

Which document of a group stays depends on the order of the tasks' files alone, never on which task ended first.
"""

from __future__ import annotations

from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.dedup.exact_dedup import (
    ExactDedupConfig,
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
)
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.utils.hashing import HashConfig

from data_prep.blocks.config import MinHashConfig
from data_prep.blocks.words import PlainWords
from data_prep.ledger import ReasonKeeper

# datatrove's default, xxhash, passes text where xxhash 4 takes bytes only; its SHA-1 encodes first.
_HASH = HashConfig(precision=64, hash_fc="sha1")


def _content(doc: Document) -> str:
    return doc.text


def _exact_config() -> ExactDedupConfig:
    return ExactDedupConfig(content_getter=_content, hash_config=_HASH)


def exact_signatures(folder: Path) -> ExactDedupSignature:
    """Step 1 of exact deduplication: the hash of every document of a task."""
    return ExactDedupSignature(str(folder / "signatures"), _exact_config())


def exact_find(folder: Path) -> ExactFindDedups:
    """Step 2, one task: which documents repeat an earlier one."""
    return ExactFindDedups(str(folder / "signatures"), str(folder / "duplicates"), _exact_config())


def exact_filter(folder: Path) -> ExactDedupFilter:
    """Step 3: drops them."""
    return ExactDedupFilter(str(folder / "duplicates"), _exact_config(), exclusion_writer=ReasonKeeper())


def minhash_signatures(config: MinHashConfig, folder: Path) -> MinhashDedupSignature:
    """Step 1 of near deduplication: signatures of every document of a task."""
    return MinhashDedupSignature(str(folder / "signatures"), _minhash_config(config), language=PlainWords())


def minhash_buckets(config: MinHashConfig, folder: Path) -> MinhashDedupBuckets:
    """Step 2, one task a bucket: pairs that agree in a bucket."""
    return MinhashDedupBuckets(
        str(folder / "signatures"), str(folder / "pairs"), config=_minhash_config(config), lines_to_buffer=1000
    )


def minhash_cluster(config: MinHashConfig, folder: Path) -> MinhashDedupCluster:
    """Step 3, one task: pairs to groups, and which documents go."""
    return MinhashDedupCluster(
        str(folder / "pairs"), str(folder / "remove"), config=_minhash_config(config), lines_to_buffer=1000
    )


def minhash_filter(folder: Path) -> MinhashDedupFilter:
    """Step 4: drops them."""
    return MinhashDedupFilter(str(folder / "remove"), exclusion_writer=ReasonKeeper())


def _minhash_config(config: MinHashConfig) -> MinhashConfig:
    return MinhashConfig(
        n_grams=config.ngram,
        num_buckets=config.buckets,
        hashes_per_bucket=config.hashes_per_bucket,
        seed=config.seed,
        hash_config=_HASH,
    )
