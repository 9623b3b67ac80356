"""What a data preparation recipe may say. Imports neither torch nor datatrove, so every room may read it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data_prep.blocks.config import (
    Bytes,
    DecontaminateConfig,
    DedupConfig,
    ExtractConfig,
    FiltersConfig,
    LanguagesConfig,
    MixConfig,
    Paths,
    PiiConfig,
    ReadConfig,
    UrlFilterConfig,
)
from kit.config import Config


class InputConfig(Config):
    """Crawl files: WARC, WET, ARC or JSONL, plain or compressed with gzip or xz.

    Attributes:
        paths: files, folders, globs or URLs (any scheme that fsspec knows). A relative path that does not exist in
            the working folder is looked for beside the package, so that the embedded sample is always found.
        limit: at most this many records of every file; None reads all.
    """

    paths: Paths = Field(min_length=1)
    limit: int | None = Field(default=None, gt=0)


class TokenizerConfig(Config):
    """SentencePiece (Kudo & Richardson 2018) trained on the kept text.

    Attributes:
        file: the tokenizer.model of another run of data_prep, which is taken as it is and none is trained: datasets
            that shall be blended need one tokenizer. `kind` must be its kind; the keys of training are not looked at.
        sample_bytes: how much text the training reads, spread evenly over the documents ("32 MiB" or a number).
        allow_smaller: where the text is too small for `vocab_size`, take the largest vocabulary that it gives and say
            so; else that is an error.
        compare_with: a GPT-2 vocabulary (tokenizer.json, or the folder of vocab.json and merges.txt) that the report
            sets the fertility against.
    """

    kind: Literal["bpe", "unigram"] = "bpe"
    file: str | None = None
    vocab_size: int = Field(default=32_000, ge=300, le=1_000_000)
    sample_bytes: Bytes = 32 * 2**20
    character_coverage: float = Field(default=0.9995, gt=0.9, le=1.0)
    allow_smaller: bool = False
    compare_with: str | None = None


class SplitConfig(Config):
    """Held-out documents are chosen by the hash of their text, so a document never changes sides."""

    validation_fraction: float = Field(default=0.05, gt=0.0, lt=1.0)


class ExecuteConfig(Config):
    """Which of datatrove's executors runs the tasks of every step.

    Attributes:
        kind: local: processes of this machine (or, under a target of several hosts, of each of them, over a run
            directory that all can reach). ray, slurm: datatrove's own executors.
        hosts: how many hosts of the target work on it; auto is all that the target names if it has `storage`, else
            one. The result does not depend on it.
        slurm_partition, slurm_time, slurm_memory_gib, slurm_cpus: of a Slurm task.
        ray_address: of a running Ray cluster; null starts one on this machine.
    """

    kind: Literal["local", "ray", "slurm"] = "local"
    hosts: Literal["auto"] | Annotated[int, Field(gt=0)] = "auto"
    slurm_partition: str = "main"
    slurm_time: str = "24:00:00"
    slurm_memory_gib: int = Field(default=4, gt=0)
    slurm_cpus: int = Field(default=1, gt=0)
    ray_address: str | None = None


class DataPrepConfig(Config):
    """The recipe of the stage `data_prep`.

    Attributes:
        tasks: how many parts the input is cut into. The result depends on it, never on `workers`: with several
            workers the parts run at the same time, and which one ends first makes no difference.
        workers: processes at a time; auto is one a core, at most `tasks`.
        keep_intermediate: keep the text of every step in RUN_DIR/work after the run finished.
    """

    stage: Literal["data_prep"] = "data_prep"
    name: str
    input: InputConfig
    tasks: int = Field(default=8, gt=0)
    workers: Literal["auto"] | Annotated[int, Field(gt=0)] = "auto"
    execute: ExecuteConfig = ExecuteConfig()
    read: ReadConfig = ReadConfig()
    url_filter: UrlFilterConfig | None = None
    extract: ExtractConfig = ExtractConfig()
    languages: LanguagesConfig = LanguagesConfig()
    filters: FiltersConfig = FiltersConfig()
    pii: PiiConfig = PiiConfig()
    dedup: DedupConfig = DedupConfig()
    decontaminate: DecontaminateConfig | None = None
    mix: MixConfig | None = None
    tokenizer: TokenizerConfig = TokenizerConfig()
    split: SplitConfig = SplitConfig()
    keep_intermediate: bool = False
    parents: dict[str, str] = {}
