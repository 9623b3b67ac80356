"""Perplexity: a model small enough to score by hand, CCNet's buckets, and KenLM's own numbers where it is installed."""

import random
from pathlib import Path

import pytest
from datatrove.data import Document

from data_prep.blocks.arpa import ArpaModel
from data_prep.blocks.config import PerplexityConfig
from data_prep.blocks.perplexity import Perplexity, normalise, perplexity
from kit.errors import UserError

ARPA = """\\data\\
ngram 1=6
ngram 2=4
ngram 3=2

\\1-grams:
-1.0\t<unk>
0\t<s>\t-0.5
-1.5\t</s>
-0.8\ta\t-0.3
-0.9\tb\t-0.2
-1.1\tc\t-0.1

\\2-grams:
-0.4\t<s> a\t-0.25
-0.35\ta b\t-0.15
-0.6\tb </s>
-0.7\tb c\t-0.05

\\3-grams:
-0.2\t<s> a b
-0.3\ta b </s>

\\end\\
"""

# <s> a b </s>: -0.4 -0.2 -0.3
# <s> c x </s>: c after <s>: -0.5 -1.1; x is unknown: back off from (<s> c) 0, from c -0.1, then -1.0;
#               </s> after (c <unk>): 0, 0, then -1.5
BY_HAND = {"a b": -0.9, "c x": -1.6 - 1.1 - 1.5, "": -0.5 - 1.5, "a b b": -0.6 - 0.15 - 0.2 - 0.9 - 0.6}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.arpa"
    path.write_text(ARPA)
    return path


@pytest.mark.parametrize(("sentence", "score"), BY_HAND.items())
def test_scores_as_by_hand(model: Path, sentence: str, score: float) -> None:
    assert ArpaModel(model).score(sentence) == pytest.approx(score)


def test_the_same_numbers_as_kenlm(model: Path) -> None:
    kenlm = pytest.importorskip("kenlm", reason="the optional package kenlm is not installed")
    theirs, ours, generator = kenlm.Model(str(model)), ArpaModel(model), random.Random(0)
    for _ in range(200):
        sentence = " ".join(generator.choices("a b c x <unk>".split(), k=generator.randrange(9)))  # noqa: SIM905
        assert ours.score(sentence) == pytest.approx(theirs.score(sentence), abs=1e-4)


def test_perplexity_counts_ends_of_lines(model: Path) -> None:
    score = ArpaModel(model).score
    assert perplexity("a b\n\nC X", score, str.split) == pytest.approx(10 ** ((0.9 + 4.2) / 6))
    assert perplexity(" \n", score, str.split) == float("inf")


def test_normalises_as_ccnet() -> None:
    assert normalise("  Été 1984… «Ça» – 3\x07！ ") == 'ete 0000... "ca" - 0!'


def test_buckets(model: Path) -> None:
    config = PerplexityConfig(models={"en": str(model)}, head={"en": 3}, tail={"en": 6})
    verdicts = []
    for text in ("a b", "a b c", "c x"):
        document = Document(text=text, id="1")
        verdicts.append((Perplexity(config).filter(document), document.metadata["bucket"]))
    assert verdicts == [(True, "head"), (True, "middle"), ((False, "perplexity_tail"), "tail")]
    document = Document(text="a b", id="1", metadata={"language": "en"})
    assert Perplexity(config.model_copy(update={"keep": ["tail"]})).filter(document) == (False, "perplexity_head")
    assert document.metadata["perplexity"] == pytest.approx(10**0.3, abs=0.05)


def test_other_languages_and_models_without_limits_pass(model: Path) -> None:
    block = Perplexity(PerplexityConfig(models={"en": str(model)}))
    french, english = Document(text="c", id="1", metadata={"language": "fr"}), Document(text="c", id="2")
    assert block.filter(french) is True and "perplexity" not in french.metadata
    assert block.filter(english) is True and "bucket" not in english.metadata


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": {"en": "no/such.arpa"}}, "does not exist"),
        ({"tokenizers": {"en": "no/such.model"}}, "does not exist"),
        ({"head": {"en": 1.0}}, "has head 1.0, tail None"),
        ({"head": {"en": 2.0}, "tail": {"en": 1.0}}, "head 2.0, tail 1.0"),
        ({"head": {"fr": 1.0}, "tail": {"fr": 2.0}}, "model None"),
    ],
)
def test_mistakes_in_the_recipe(changes: dict[str, dict[str, object]], words: str, model: Path) -> None:
    with pytest.raises(UserError, match=words):
        Perplexity(PerplexityConfig(**{"models": {"en": str(model)}, **changes}))


def test_a_binary_model_needs_the_package(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = model.rename(model.with_suffix(".bin"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="package kenlm is not installed"):
        Perplexity(PerplexityConfig(models={"en": str(binary)}))


@pytest.mark.parametrize("content", ["hello\n", "\\1-grams:\nnot a number\n", "\\1-grams:\n-1 a\n\\2-grams:\n-1 a\n"])
def test_refuses_what_is_no_model(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x.arpa"
    path.write_text(content)
    with pytest.raises(UserError, match="no ARPA model"):
        ArpaModel(path)
