"""Bad input: one three-part error, exit code 2, and nothing that was there before is touched."""

from __future__ import annotations

import gzip
import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from kit.run.directory import list_runs
from kit.tokens.card import read_card

SAMPLE = Path(__file__).resolve().parents[2] / "data_prep" / "sample" / "docs.warc.gz"


def assert_three_parts(output: str) -> None:
    for part in ("Found:", "Expected:", "Do:"):
        assert output.count(f"{part} ") == 1, output
    assert "Traceback" not in output


THREE_RANKS = [
    word for key in ("engine=megatron", "layout.data=3", "data.global_batch_samples=6") for word in ("--set", key)
]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--set", "optimizer.learning_rat=1"], "did you mean `learning_rate`"),
        (["--set", "layout.tensor=3"], "layout.tensor is 3"),
        (["--set", "layout.data=3", "--set", "data.global_batch_samples=6"], "one process"),
        ([*THREE_RANKS, "--target-set", "devices_per_host=2"], "needs 3 processes"),
        (["--set", "stage=pretrian"], "did you mean `pretrain`"),
        (["--parent", "data=no-such-run"], "no run fits 'no-such-run'"),
        (["--on", "laptpo"], "did you mean `laptop`"),
        (["--target-set", "device_per_host=4"], "did you mean `devices_per_host`"),
    ],
)
def test_mistakes_make_nothing(world: Path, slipway, words: list[str], told: str) -> None:
    before = slipway.count()
    code, output = slipway.run("run", str(world / "model.yaml"), "--target-set", "devices_per_host=2", *words)
    assert code == 2, output
    assert_three_parts(output)
    assert told in output
    assert slipway.count() == before


def test_a_recipe_that_is_missing(slipway) -> None:
    code, output = slipway.run("run", "pretrain/dmeo")
    assert code == 2
    assert_three_parts(output)
    assert "did you mean `pretrain/demo`" in output


def test_a_crawl_file_that_is_missing(world: Path, slipway) -> None:
    code, output = slipway.run("run", str(world / "data.yaml"), "--set", 'input.paths=["no/such.warc.gz"]')
    assert code == 2, output
    assert_three_parts(output)
    assert "no/such.warc.gz" in output


def test_a_missing_parent_names_the_recipe_that_makes_it(world: Path, slipway, tmp_path: Path) -> None:
    slipway.runs = tmp_path / "empty"
    code, output = slipway.run("run", str(world / "model.yaml"))
    assert code == 2
    assert_three_parts(output)
    assert "slipway run data_prep/demo" in output
    assert "--with-parents" in output


def test_a_tokenizer_that_does_not_match_the_shards(world: Path, slipway, tmp_path: Path) -> None:
    slipway.runs = tmp_path / "runs"
    slipway.runs.mkdir()
    data = next(run for run in list_runs(world / "runs") if run.manifest().stage == "data_prep")
    copy = shutil.copytree(data.path, slipway.runs / data.id)
    card = json.loads((copy / "artifacts" / "card.json").read_text())
    tokenizer = copy / "artifacts" / card["tokenizer"]["file"]
    tokenizer.write_bytes(tokenizer.read_bytes() + b"\x00")
    code, output = slipway.run("run", str(world / "model.yaml"))
    assert code == 2, output
    assert_three_parts(output)
    assert "tokenizer" in output


def test_a_truncated_warc_is_read_as_far_as_it_goes(world: Path, slipway, tmp_path: Path) -> None:
    """Forty whole records and one that breaks off in the middle; the broken one is counted."""
    with gzip.open(SAMPLE) as file:
        text = file.read(3_000_000)
    starts = _starts(text)
    whole = b"".join(gzip.compress(text[a:b]) for a, b in pairwise(starts[:41]))
    last = gzip.compress(text[starts[40] : starts[41]])
    broken = tmp_path / "broken.warc.gz"
    broken.write_bytes(whole + last[: len(last) // 2])
    changes = ["languages.threshold=0", "languages.keep=[en,de,fr,es]", "tokenizer.vocab_size=600"]
    sets = [word for change in [f'input.paths=["{broken}"]', *changes] for word in ("--set", change)]
    code, output = slipway.run("run", str(world / "data.yaml"), *sets, timeout=180)
    assert code == 0, output
    card = read_card(slipway.newest().artifacts / "card.json")
    assert card.records_corrupt >= 1
    assert card.documents_out >= 3


def _starts(text: bytes) -> list[int]:
    found, position = [], text.find(b"WARC/1.")
    while position >= 0:
        found.append(position)
        position = text.find(b"\r\n\r\nWARC/1.", position + 1)
        position = position + 4 if position >= 0 else -1
    return found
