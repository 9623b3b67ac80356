"""The dataset card of a run: the funnel, the languages, and fingerprints of inputs, tokenizer and configuration."""

from __future__ import annotations

import json
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from data_prep.blocks.minhash import CLUSTERS_FILE
from data_prep.blocks.read import CORRUPT_REASONS
from data_prep.clock import read_clock
from data_prep.config import DataPrepConfig
from data_prep.inputs import CrawlFile, fingerprints
from data_prep.ledger import read_ledger
from data_prep.make_tokenizer import TOKENIZER_FILE
from data_prep.samples import SAMPLES_FILE, write_samples
from data_prep.statistics import Statistics
from data_prep.steps import Places
from data_prep.train_tokenizer import END_ID, PAD_ID, RESERVED, UNKNOWN_ID
from kit.config import digest
from kit.errors import UserError
from kit.files import atomic_write, sha256_file
from kit.run.directory import RunDirectory
from kit.tokens.card import BlockCard, DatasetCard, InputCard, SplitCard, TokenizerCard


def build_card(
    config: DataPrepConfig,
    run: RunDirectory,
    places: Places,
    files: list[CrawlFile],
    splits: dict[str, SplitCard],
    found: Statistics,
) -> DatasetCard:
    """Put the card together, and write what is shown beside it: samples and clusters.

    Args:
        config: the recipe.
        run: the run that makes the dataset, with the tokenizer in place.
        places: where its work lies.
        files: the inputs.
        splits: the finished shards.
        found: of the documents.
    """
    write_samples(run.artifacts / SAMPLES_FILE, found.kept, found.dropped)
    blocks = read_ledger(places.ledger)
    return DatasetCard(
        name=config.name,
        created_by=run.id,
        splits=splits,
        tokenizer=_tokenizer_card(config, run.artifacts),
        blocks=blocks,
        languages=found.languages,
        languages_in=found.languages_in,
        lengths_kept=found.lengths_kept,
        lengths_dropped=found.lengths_dropped,
        sources=found.sources,
        duplicate_clusters=_clusters(run, places),
        step_cpu_seconds=read_clock(places.clock),
        inputs=[InputCard(path=path, bytes=size, sha256=sha) for path, (size, sha) in fingerprints(files).items()],
        records_corrupt=corrupt_records(blocks[0]),
        config_digest=digest(config),
        documents_in=blocks[0].documents_in,
        documents_out=blocks[-1].documents_out,
    )


def corrupt_records(block: BlockCard) -> int:
    """Records of the reading block that were damaged."""
    return sum(block.dropped.get(reason, 0) for reason in CORRUPT_REASONS)


def check_survivors(blocks: list[BlockCard]) -> None:
    """See that something is left.

    Raises:
        UserError: nothing is; says what dropped most.
    """
    first, last = blocks[0], blocks[-1]
    if last.documents_out:
        return
    if first.documents_in == corrupt_records(first):
        what = f"all {first.documents_in} damaged" if first.documents_in else "none in it"
        raise UserError(
            f"input.paths: no page record could be read ({what})",
            expected="at least one readable WARC response, WET conversion or JSON line with a `text`",
            action="check the download (`gzip -t FILE`), or name other files",
        )
    block, reason, count = max(
        ((block.name, reason, count) for block in blocks for reason, count in block.dropped.items()),
        key=lambda drop: drop[2],
    )
    raise UserError(
        f"0 of {first.documents_in} documents survived: {count} were dropped by {block} ({reason})",
        expected="at least two documents that pass every filter",
        action=f"loosen {block} in the recipe, or give input in the languages that it keeps",
    )


def _clusters(run: RunDirectory, places: Places) -> dict[int, int]:
    """Sizes of the clusters of near duplicates; the whole summary goes to the artifacts."""
    path = places.near / CLUSTERS_FILE
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8")
    atomic_write(run.artifacts / CLUSTERS_FILE, text)
    return {int(size): count for size, count in json.loads(text)["sizes"].items()}


def _tokenizer_card(config: DataPrepConfig, artifacts: Path) -> TokenizerCard:
    processor = SentencePieceProcessor(model_file=str(artifacts / TOKENIZER_FILE))
    byte_ids = [index for index in range(processor.get_piece_size()) if processor.is_byte(index)]
    return TokenizerCard(
        kind=config.tokenizer.kind,
        vocab_size=processor.get_piece_size(),
        fingerprint=sha256_file(artifacts / TOKENIZER_FILE),
        file=TOKENIZER_FILE,
        eod_id=END_ID,
        pad_id=PAD_ID,
        reserved=list(RESERVED),
        unknown_id=UNKNOWN_ID,
        byte_ids=(byte_ids[0], byte_ids[-1]) if byte_ids else None,
    )
