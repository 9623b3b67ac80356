"""The benchmark of data preparation: its corpus is the same on every machine, and its one line is complete."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from benchmarks.data import parts
from benchmarks.data.__main__ import arguments_of
from benchmarks.data.corpus import Corpus, build_corpus, own_corpus, read_truth
from benchmarks.data.duplicates import RATES
from benchmarks.data.kept import compare, token_f1
from benchmarks.data.stages import STAGES
from data_prep.inputs import find_inputs
from infra import peer_environment
from kit.errors import UserError

ROOT = Path(__file__).parents[2]
MEASURED = {"ratio_end_to_end", "ratio_spread", "ratio_without_startup", "startup_cpu_seconds", "pages_per_second"}
MEASURED |= {"pages", "rounds", "kept", "funnel", "stages", "corpus", "minutes", "peak_memory_gib", "linearity"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return build_corpus(tmp_path_factory.mktemp("cache"), 300, offline=True)


def test_the_corpus_is_the_same_bytes_every_time(corpus: Corpus, tmp_path: Path) -> None:
    again = build_corpus(tmp_path, 300, offline=True)
    assert [path.read_bytes() for path in again.files] == [path.read_bytes() for path in corpus.files]
    assert again.truth.read_bytes() == corpus.truth.read_bytes()
    other = build_corpus(tmp_path, 300, seed=8, offline=True)
    assert other.truth.read_bytes() != corpus.truth.read_bytes()


def test_a_corpus_that_was_built_is_not_built_again(tmp_path: Path) -> None:
    first = build_corpus(tmp_path, 5, offline=True)
    first.truth.write_text("kept")
    assert build_corpus(tmp_path, 5, offline=True).truth.read_text() == "kept"


def test_the_truth_knows_every_page_and_every_kind(corpus: Corpus) -> None:
    rows = read_truth(corpus.truth)
    kinds = Counter(row.kind for row in rows)
    assert set(kinds) == {"orig", *RATES}
    assert kinds["orig"] == 300 and len(rows) == corpus.pages
    assert 0.1 < 1 - kinds["orig"] / len(rows) < 0.3
    originals = {row.cluster: row for row in rows if row.kind == "orig"}
    for row in rows:
        assert (row.sha1 == originals[row.cluster].sha1) == (row.kind in ("orig", "exact"))


def test_the_files_hold_the_pages_of_the_truth(corpus: Corpus) -> None:
    files, skipped = find_inputs(corpus.names)
    assert len(files) == 4 and not skipped
    urls = []
    for path in corpus.files:
        with path.open("rb") as stream:
            records = list(ArchiveIterator(stream, record_types=WarcRecordType.response, verify_digests=True))
            urls += [record.headers["WARC-Target-URI"] for record in records]
    assert sorted(urls) == sorted(row.url for row in read_truth(corpus.truth))


def test_kept_sets_are_compared_by_address_by_cluster_and_by_words(tmp_path: Path) -> None:
    ours, peer = tmp_path / "ours", tmp_path / "peer"
    ours.mkdir()
    peer.mkdir()
    (ours / "0.jsonl").write_text('{"url": "a", "text": "one two"}\n{"url": "b", "text": "x"}\n')
    rows = [("a", "one three"), ("b2", "x"), ("c", "y")]
    lines = [json.dumps({"text": text, "metadata": {"url": url}}) for url, text in rows]
    (peer / "0.jsonl").write_text("\n".join(lines) + "\n")
    truth = tmp_path / "truth.tsv"
    truth.write_text("a\tA\torig\t0\nb\tB\torig\t0\nb2\tB\texact\t0\nc\tC\torig\t0\n")
    found = compare(ours, peer, truth)
    assert (found["kept_ours"], found["kept_peer"], found["kept_by_both"]) == (2, 3, 1)
    assert found["clusters_by_both"] == 2 and found["cluster_agreement"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["text_overlap"] == token_f1("one two", "one three") == 0.5


def test_a_missing_warc_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.warc"):
        own_corpus([tmp_path / "absent.warc"])


def test_a_part_that_cannot_run_leaves_its_keys_null(tmp_path: Path) -> None:
    found = parts.gather([part for part in parts.parts(tmp_path, tmp_path / "texts.jsonl", None) if part.needs])
    assert {key for key in found if key != "left_out"} == {key for taken in parts.TAKEN.values() for key in taken}
    assert found["left_out"]["languages"] in ("no tatoeba_long.txt here (see --data)", "no such program")
    assert found["extraction_f1"] is None and found["dedup_recall"] is None


def test_every_package_of_the_peers_is_pinned() -> None:
    lines = [line for line in peer_environment.LOCK.read_text().splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 for line in lines) and lines == sorted(lines)
    pins = dict(line.split("==") for line in lines)
    assert pins["datatrove"] == "0.10.1" and pins["trafilatura"] < "1.12"


def test_the_command_line_has_a_quick_mode() -> None:
    assert arguments_of(["--quick"]).quick and not arguments_of([]).quick


@pytest.mark.slow
def test_the_line_at_the_end_is_complete(tmp_path: Path) -> None:
    if not peer_environment.is_ready():
        pytest.skip("no environment of the peers: `python -m infra.peer_environment` makes it")
    command = [sys.executable, "-m", "benchmarks.data", "--quick", "--offline", "--cache", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert MEASURED.union(*parts.TAKEN.values()) <= result.keys()
    assert result["ratio_spread"][0] <= result["ratio_end_to_end"] <= result["ratio_spread"][1]
    assert result["linearity"] > 0 and 0 < result["peak_memory_gib"] < 1.5
    assert result["pages"] == result["pages_peer"] and set(result["stages"]) == set(STAGES)
