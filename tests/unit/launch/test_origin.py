"""Keys: equal exactly where a second run would repeat the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.errors import UserError
from launch.origin import MissingParent, artifacts_digest, find_parent, input_fingerprints, run_key
from launch.plan import make_plan


def key(recipe: str = "model.yaml", parents: dict[str, str] | None = None, repeat: int = 1, **how: list[str]) -> str:
    return run_key(make_plan(recipe, **how), parents or {"data": "sha256:a"}, repeat)


def test_the_key_is_the_same_for_the_same_request(folder: Path) -> None:
    assert key() == key()
    assert key() == key(sets=["budget.steps=30"]), "a value that was there already changes nothing"


def test_the_key_follows_configuration_layout_parents_target_changes_and_repetition(folder: Path) -> None:
    keys = [
        key(),
        key(sets=["seed=7"]),
        key(sets=["engine=accelerate"]),
        key(sets=["engine=accelerate", "layout.data=2"]),
        key(parents={"data": "sha256:b"}),
        key(target_sets=["threads_per_process=1"]),
        key(repeat=2),
    ]
    assert len(set(keys)) == len(keys)


def test_the_key_does_not_follow_what_the_parent_is_called(folder: Path) -> None:
    first = run_key(make_plan("model.yaml", parents={"data": "one"}), {"data": "sha256:a"})
    second = run_key(make_plan("model.yaml", parents={"data": "other"}), {"data": "sha256:a"})
    assert first == second


def test_the_key_of_data_follows_the_content_of_its_input(folder: Path) -> None:
    before = key("data.yaml", {})
    (folder / "pages.jsonl").touch()
    assert key("data.yaml", {}) == before
    (folder / "pages.jsonl").write_text('{"text": "another page"}\n')
    assert key("data.yaml", {}) != before


def test_fingerprints_of_files_folders_patterns_addresses_and_nothing(folder: Path) -> None:
    crawl = folder / "crawl"
    crawl.mkdir()
    (crawl / "a.warc").write_text("a")
    (crawl / "b.warc").write_text("b")
    words = ["pages.jsonl", "crawl", "crawl/*.warc", str(crawl / "a.warc"), "s3://bucket/x", "nowhere"]
    found = input_fingerprints({"input": {"paths": words}}, "input.paths")
    assert set(found) == {
        *("pages.jsonl", "crawl/a.warc", "crawl/b.warc", str(crawl / "a.warc")),
        *("s3://bucket/x", "nowhere"),
    }
    assert found["crawl/a.warc"] == found[str(crawl / "a.warc")]
    assert found["nowhere"] == "missing"


def test_the_embedded_sample_has_a_fingerprint_from_any_folder(folder: Path) -> None:
    name = "data_prep/sample/docs.warc.gz"
    assert input_fingerprints({"paths": [name]}, "paths")[name].startswith("sha256:")


def test_last_means_the_newest_finished_run_that_is_no_measurement(folder: Path, past_run) -> None:
    runs = folder / "runs"
    with pytest.raises(MissingParent) as caught:
        find_parent(runs, "data", "last:data_prep", "pretrain/demo")
    assert caught.value.recipe == "data_prep/demo"
    wanted = past_run("pretrain")
    past_run("pretrain", role="scaling")
    past_run("pretrain", "submitted", "failed")
    assert find_parent(runs, "model", "last:pretrain", "evaluate/demo").id == wanted.id


def test_a_parent_must_have_finished(folder: Path, past_run) -> None:
    run = past_run("pretrain", "submitted", "started", "stopped")
    with pytest.raises(UserError, match="which is stopped"):
        find_parent(folder / "runs", "model", run.id, "evaluate/demo")


def test_the_digest_of_a_parent_follows_its_artifacts(past_run) -> None:
    run = past_run("pretrain")
    before = artifacts_digest(run)
    (run.artifacts / "model").mkdir()
    (run.artifacts / "model" / "config.json").write_text("{}")
    assert artifacts_digest(run) != before
