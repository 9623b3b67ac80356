"""What each block of the data pipeline may be told; thresholds default to the papers'. Imports no datatrove."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from kit.config import Config
from kit.units import parse_bytes

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


def _as_bytes(value: Any) -> Any:
    return parse_bytes(value) if isinstance(value, str) else value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Bytes = Annotated[int, BeforeValidator(_as_bytes), Field(gt=0)]
Paths = Annotated[list[str], BeforeValidator(_as_list)]


class ReadConfig(Config):
    """Limits of one record, so that no page can take the memory of a worker.

    Attributes:
        max_record_bytes: A stored payload beyond this is skipped and counted (`record_too_large`).
        max_page_bytes: A payload that decompresses to more is cut off there and counted (`page_too_large`): a zip
            bomb costs no more than this.
    """

    max_record_bytes: Bytes = 64 * 2**20
    max_page_bytes: Bytes = 16 * 2**20


class ExtractConfig(Config):
    """HTML to text.

    Attributes:
        extractor: fast is ours (data_prep/extraction); trafilatura: Barbaresi (2021), ACL demo; resiliparse:
            Bevendorff et al. (2018), ECIR.
        timeout_seconds: Of one page.
    """

    extractor: Literal["fast", "trafilatura", "resiliparse"] = "fast"
    timeout_seconds: float = Field(default=10.0, gt=0)


class UrlFilterConfig(Config):
    """Pages that are dropped for their address alone, before their text is extracted.

    Attributes:
        domains: Files of registered domains, one a line; their subdomains go too.
        urls: Files of whole addresses, one a line.
        banned_words: Files of words; one of them as a word of the address drops the page.
        soft_banned_words: Files of words of which `soft_threshold` together drop it (RefinedWeb, Penedo et al. 2023,
            appendix G.1).
    """

    domains: Paths = []
    urls: Paths = []
    banned_words: Paths = []
    soft_banned_words: Paths = []
    soft_threshold: int = Field(default=2, gt=0)


class LanguagesConfig(Config):
    """Languages to keep (ISO 639-1; empty keeps all that are identified) and the identifier's least probability."""

    keep: list[str] = ["en", "fr", "de", "es"]
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


class BadWordsConfig(Config):
    """Pages with a word of the user's list are dropped (Raffel et al. 2020, section 2.2, without their list).

    Attributes:
        files: Language (or `default`) -> a file of words and phrases, one a line.
        keep_fraction: This share of such pages stays, chosen by the hash of the text.
    """

    files: dict[str, str] = Field(min_length=1)
    keep_fraction: Fraction = 0.0


class PerplexityConfig(Config):
    """Perplexity buckets by a KenLM model a language, Wenzek et al. (2020), section 3.4. Needs the kenlm package.

    Attributes:
        models: Language -> a KenLM file (.arpa or .bin); pages of other languages pass unmarked.
        tokenizers: Language -> the SentencePiece model the KenLM model was trained on; without one, words.
        head, tail: Perplexities that end the head bucket and begin the tail, by language; terciles of CCNet.
        keep: Buckets that stay.
    """

    models: dict[str, str] = Field(min_length=1)
    tokenizers: dict[str, str] = {}
    head: dict[str, float] = {}
    tail: dict[str, float] = {}
    keep: list[Literal["head", "middle", "tail"]] = ["head", "middle"]


class FiltersConfig(Config):
    """Quality filters in the order in which they run; null switches one off."""

    gopher_repetition: GopherRepetitionConfig | None = GopherRepetitionConfig()
    gopher_quality: GopherQualityConfig | None = GopherQualityConfig()
    c4: C4Config | None = C4Config()
    fineweb: FineWebConfig | None = FineWebConfig()
    bad_words: BadWordsConfig | None = None
    perplexity: PerplexityConfig | None = None


class PiiConfig(Config):
    """Which personal data is masked in the text. Keys: private key blocks and access tokens of well-known forms."""

    emails: bool = True
    ip_addresses: bool = True
    phone_numbers: bool = False
    keys: bool = True


class LinesConfig(Config):
    """Lines or paragraphs that were seen before, anywhere in the input, are cut out of the text.

    Raffel et al. (2020), section 2.2, and CCNet's paragraphs (Wenzek et al. 2020, section 3.1).

    Attributes:
        unit: What is compared, after lower-casing and dropping digits and punctuation.
        min_characters: Shorter ones stay, however often they come.
        min_words_left: A page with fewer words than this after the cut is dropped.
    """

    unit: Literal["line", "paragraph"] = "paragraph"
    min_characters: int = Field(default=40, ge=0)
    min_words_left: int = Field(default=50, ge=0)


class MinHashConfig(Config):
    """Near duplicates by MinHash with banding, Broder (1997); Leskovec et al., chapter 3.

    Pages of similarity s become candidates with probability 1 - (1 - s ** hashes_per_bucket) ** buckets. A candidate
    pair counts when the whole signatures agree in at least `threshold`.
    """

    ngram: int = Field(default=5, gt=0)
    buckets: int = Field(default=20, gt=0)
    hashes_per_bucket: int = Field(default=8, gt=0)
    threshold: Fraction = 0.72
    seed: int = Field(default=1, ge=0)


class DedupConfig(Config):
    """Exact and near duplicates over the whole input; the first page stays.

    Attributes:
        url: Drop pages whose address came before.
        exact: Drop pages whose text came before.
        lines: Cut out repeated lines or paragraphs; null leaves them.
        minhash: Drop near duplicates; null leaves them.
    """

    url: bool = False
    exact: bool = True
    lines: LinesConfig | None = None
    minhash: MinHashConfig | None = MinHashConfig()


class DecontaminateConfig(Config):
    """Pages that share word n-grams with evaluation sets are dropped (Brown et al. 2020, appendix C).

    Attributes:
        paths: Text, JSONL (plain or compressed) or CSV files; every string in them is evaluation text.
        ngram: Words of an overlap, after lower-casing and dropping punctuation; shorter items are matched whole where
            they have at least `min_words` words.
        max_overlaps: A page with more different n-grams in common than this is dropped.
    """

    paths: Paths = Field(min_length=1)
    ngram: int = Field(default=13, gt=0)
    min_words: int = Field(default=8, gt=0)
    max_overlaps: int = Field(default=0, ge=0)


class SourceConfig(Config):
    """One source of the mixture: the input files that match a pattern, and how often their documents come.

    Attributes:
        files: A glob over the inputs' names as the card gives them.
        weight: Expected copies of each document: 0.25 keeps a quarter, 2.5 gives two or three of each.
    """

    files: str
    weight: float = Field(ge=0)


class MixConfig(Config):
    """Sources by name, first match counts; documents of no source come once. Chosen by hash, not by chance."""

    sources: dict[str, SourceConfig] = Field(min_length=1)
    seed: int = 1
