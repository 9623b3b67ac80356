"""What a data preparation recipe may say. Imports neither torch nor datatrove, so every room may read it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from kit.config import Config
from kit.units import parse_bytes

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


def _as_bytes(value: Any) -> Any:
    return parse_bytes(value) if isinstance(value, str) else value


Bytes = Annotated[int, BeforeValidator(_as_bytes), Field(gt=0)]


class InputConfig(Config):
    """Crawl files: WARC, WET or JSONL, plain or compressed with gzip or xz.

    Attributes:
        paths: files, folders, globs or URLs (any scheme that fsspec knows). A relative path that does not exist in
            the working folder is looked for beside the package, so that the embedded sample is always found.
        limit: at most this many records of every file; None reads all.
    """

    paths: list[str] = Field(min_length=1)
    limit: int | None = Field(default=None, gt=0)


class ExtractConfig(Config):
    """HTML to text. trafilatura: Barbaresi (2021), ACL demo; resiliparse: Bevendorff et al. (2018), ECIR."""

    method: Literal["trafilatura", "resiliparse"] = "trafilatura"
    timeout_seconds: float = Field(default=10.0, gt=0)


class LanguagesConfig(Config):
    """Languages to keep (ISO 639-1) and the least probability of the identifier."""

    keep: list[str] = Field(default=["en", "fr", "de", "es"], min_length=1)
    threshold: Fraction = 0.65


class GopherRepetitionConfig(Config):
    """Repetition thresholds, Rae et al. (2021), table A1."""

    duplicate_line_fraction: Fraction = 0.3
    duplicate_paragraph_fraction: Fraction = 0.3
    duplicate_line_character_fraction: Fraction = 0.2
    duplicate_paragraph_character_fraction: Fraction = 0.2
    top_ngrams: dict[int, Fraction] = {2: 0.2, 3: 0.18, 4: 0.16}
    duplicate_ngrams: dict[int, Fraction] = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


class GopherQualityConfig(Config):
    """Quality thresholds, Rae et al. (2021), appendix A1.1. Stop words are per language (stop_words.yaml)."""

    min_words: int = Field(default=50, ge=0)
    max_words: int = Field(default=100_000, gt=0)
    min_mean_word_length: float = 3
    max_mean_word_length: float = 10
    max_symbol_word_ratio: float = 0.1
    max_bullet_line_fraction: Fraction = 0.9
    max_ellipsis_line_fraction: Fraction = 0.3
    min_alphabetic_word_fraction: Fraction = 0.8
    min_stop_words: int = Field(default=2, ge=0)


class C4Config(Config):
    """Line and page rules, Raffel et al. (2020), section 2.2.

    Lines without terminal punctuation stay by default, as in FineWeb (Penedo et al. 2024, section 3.4).
    """

    drop_lines_without_punctuation: bool = False
    drop_pages_with_curly_brackets: bool = True
    drop_lines_with_javascript: bool = True
    min_sentences: int = Field(default=5, ge=0)
    min_words_per_line: int = Field(default=3, ge=0)
    max_word_length: int = Field(default=1000, gt=0)


class FineWebConfig(Config):
    """Line statistics, Penedo et al. (2024), section 3.6."""

    min_punctuated_line_fraction: Fraction = 0.12
    max_short_line_fraction: Fraction = 0.67
    short_line_characters: int = Field(default=30, gt=0)
    max_duplicate_character_fraction: Fraction = 0.01
    max_newline_word_ratio: float = 0.3


class FiltersConfig(Config):
    """Quality filters in the order in which they run; null switches one off."""

    gopher_repetition: GopherRepetitionConfig | None = GopherRepetitionConfig()
    gopher_quality: GopherQualityConfig | None = GopherQualityConfig()
    c4: C4Config | None = C4Config()
    fineweb: FineWebConfig | None = FineWebConfig()


class PiiConfig(Config):
    """Which personal data is masked in the text."""

    emails: bool = True
    ip_addresses: bool = True


class MinHashConfig(Config):
    """Near duplicates by MinHash with banding, Broder (1997); Leskovec et al., chapter 3.

    Pages of similarity s are found with probability 1 - (1 - s ** hashes_per_bucket) ** buckets.
    """

    ngram: int = Field(default=5, gt=0)
    buckets: int = Field(default=14, gt=0)
    hashes_per_bucket: int = Field(default=8, gt=0)
    seed: int = 1


class DedupConfig(Config):
    """Exact (hash of the text) and near (MinHash) deduplication over the whole input; the first page stays."""

    exact: bool = True
    minhash: MinHashConfig | None = MinHashConfig()


class TokenizerConfig(Config):
    """SentencePiece (Kudo & Richardson 2018) trained on the kept text.

    Attributes:
        sample_bytes: how much text the training reads, spread evenly over the documents ("32 MiB" or a number).
    """

    kind: Literal["bpe", "unigram"] = "bpe"
    vocab_size: int = Field(default=8192, ge=300, le=1_000_000)
    sample_bytes: Bytes = 32 * 2**20
    character_coverage: float = Field(default=0.9995, gt=0.9, le=1.0)


class SplitConfig(Config):
    """Held-out documents are chosen by the hash of their text, so a document never changes sides."""

    validation_fraction: float = Field(default=0.05, gt=0.0, lt=1.0)


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
    extract: ExtractConfig = ExtractConfig()
    languages: LanguagesConfig = LanguagesConfig()
    filters: FiltersConfig = FiltersConfig()
    pii: PiiConfig = PiiConfig()
    dedup: DedupConfig = DedupConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    split: SplitConfig = SplitConfig()
    keep_intermediate: bool = False
    parents: dict[str, str] = {}
