"""manifest.json: written once, read back whole, or refused in words."""

from __future__ import annotations

import json

import pytest

from kit.errors import UserError
from kit.run.manifest import SCHEMA_VERSION, ChainStage, Parent, read_manifest, write_manifest

from .conftest import MakeRun, manifest_of


def test_a_manifest_comes_back_as_it_was(make_run: MakeRun) -> None:
    run = make_run("chain")
    manifest = manifest_of(
        run,
        stage="chain",
        parents={"data": Parent(run_id="d", path="/runs/d", digest="sha256:2")},
        layout={"tensor": 2, "data": 1},
        versions={"torch": "2.13.0"},
        command=["slipway", "run", "ü"],
        plan={"seconds": 1.5},
        stages=[ChainStage(id="train", stage="pretrain", run_id="p", path="/runs/p", reused=False, role="scaling")],
    )
    write_manifest(run, manifest)
    assert read_manifest(run) == run.manifest() == manifest
    assert manifest.schema_version == SCHEMA_VERSION


def test_only_a_chain_may_write_its_manifest_again(make_run: MakeRun) -> None:
    run = make_run("pretrain")
    before = run.manifest_path.read_bytes()
    with pytest.raises(AssertionError, match="written once"):
        write_manifest(run, manifest_of(run, name="other"))
    assert run.manifest_path.read_bytes() == before


def test_a_newer_schema_is_refused_even_with_keys_nobody_knows(make_run: MakeRun) -> None:
    run = make_run()
    data = json.loads(run.manifest_path.read_text()) | {"schema_version": SCHEMA_VERSION + 1, "from_the_future": 1}
    run.manifest_path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=f"schema version {SCHEMA_VERSION + 1}") as caught:
        read_manifest(run)
    assert "newer Slipway" in caught.value.action


@pytest.mark.parametrize("content", [b"", b'{"run_id": "x', b"[]", b'"x"', b"\xff", b'{"schema_version": []}', b"{}"])
def test_a_damaged_manifest_is_a_user_error_that_names_it(make_run: MakeRun, content: bytes) -> None:
    run = make_run()
    run.manifest_path.write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        read_manifest(run)


def test_a_missing_manifest_is_a_user_error(make_run: MakeRun) -> None:
    run = make_run()
    run.manifest_path.unlink()
    with pytest.raises(UserError, match="no file"):
        run.manifest()
