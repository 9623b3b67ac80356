"""Limits destroy, half-made clusters leave nothing, and wrong input makes nothing: on an emulator, without hosts."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

import pytest
from emulator_of_ec2 import CREDENTIALS, Emulator

from infra import aws, guard, rent
from infra.aws_cluster import ClusterFolder
from kit.errors import RunFailure, UserError
from kit.target import AwsSettings

pytestmark = [pytest.mark.cloud, pytest.mark.slow]


@pytest.fixture(scope="module")
def settings(emulator: Emulator) -> AwsSettings:
    return AwsSettings(
        cluster="limited",
        instance_type="c7i.2xlarge",
        count=1,
        efa=False,
        capacity="spot",
        image_id=emulator.account()["image"],
        allow_ssh_from="203.0.113.7/32",
        endpoint_url=emulator.url,
        max_hours=2,
    )


def test_the_guard_destroys_at_the_limit(emulator: Emulator, settings: AwsSettings, tmp_path: Path) -> None:
    before = emulator.resources()
    cluster = aws.begin(tmp_path, settings, aws.preflight(settings, "cpu"), 0.357)
    cluster = aws.build(tmp_path, cluster, lambda text: None)
    assert [i["lifecycle"] for i in emulator.account()["instances"]] == ["spot"]
    folder = ClusterFolder(tmp_path, "limited")
    guard.start(folder)
    process = guard.running(folder)
    assert process is not None
    folder.write(cluster.model_copy(update={"created": cluster.created - timedelta(hours=2)}))
    deadline = time.monotonic() + 120
    while folder.path.exists() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert emulator.resources() == before
    (line,) = (folder.clusters / "history.jsonl").read_text().splitlines()
    assert json.loads(line)["why"].startswith("aws.max_hours: 2 is reached (2.0")
    process.wait(20)


def test_a_cluster_that_could_not_be_made_whole_is_removed(
    emulator: Emulator, settings: AwsSettings, tmp_path: Path
) -> None:
    before = emulator.resources()
    found = aws.preflight(settings, "cpu").model_copy(update={"zones": ["us-east-1z"]})
    with pytest.raises(RunFailure) as failure:
        rent.rent(tmp_path, settings, found, 0.357, None, lambda text: None)
    assert "us-east-1z" in failure.value.found
    assert emulator.resources() == before
    assert not ClusterFolder(tmp_path, "limited").path.exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"instance_type": "p9.huge"}, "aws.instance_type"),
        ({"image_id": "ami-00000000000000000"}, "aws.image_id"),
        ({"image_id": None}, "no image called"),
        ({"endpoint_url": "http://127.0.0.1:9"}, "127.0.0.1:9"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_made(
    emulator: Emulator, settings: AwsSettings, changes: dict[str, object], named: str
) -> None:
    with pytest.raises((UserError, RunFailure)) as error:
        aws.preflight(settings.model_copy(update=changes), "cpu")
    assert named in error.value.found


def test_missing_credentials_are_said_in_plain_words(
    settings: AwsSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError) as error:
        aws.preflight(settings, "cpu")
    assert error.value.found.startswith("no credentials for")
    assert "AWS_PROFILE" in error.value.action
