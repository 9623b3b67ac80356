"""What a rented target costs, and how it becomes one that the SSH executor can serve."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.aws import Preflight
from infra.aws_cluster import Cluster, ClusterFolder, ClusterHost
from kit.config import load
from kit.errors import UserError
from kit.target import AwsSettings, Target
from launch.cloud_price import usd_per_host_hour
from launch.executors.aws_hosts import cluster_hosts
from launch.recipe_files import find_target
from launch.verbs.up import costs

FOUND = Preflight(identity="me", image_id="ami-1", zones=["us-east-1a"], efa_supported=True, there={})


def rented(runs: Path, target: Target, age: timedelta = timedelta(), **changes: str) -> None:
    assert target.aws is not None
    folder = ClusterFolder(runs, target.aws.cluster)
    folder.make()
    host = ClusterHost(name="slipway-1", instance_id="i-1", private_address="10.0.0.5", public_name="ec2.example.com")
    record = {"state": "ready", "user": "slipway", "image_id": "ami-1", "zone": "us-east-1a", **changes}
    created = datetime.now(UTC) - age
    folder.write(
        Cluster.model_validate(
            {
                **record,
                "name": target.aws.cluster,
                "settings": target.aws,
                "created": created,
                "usd_per_hour": 55.04,
                "hosts": [host],
            }
        )
    )


@pytest.fixture
def target() -> Target:
    return load(Target, find_target("aws"))


def test_the_example_costs_what_the_table_says(target: Target) -> None:
    price, source = usd_per_host_hour(target)
    assert price == 55.04
    assert "prices.yaml" in source


def test_a_price_of_ones_own_comes_first_and_an_unknown_one_is_an_error() -> None:
    mine = Target(kind="aws", aws=AwsSettings(instance_type="c7i.2xlarge", usd_per_hour=0.4))
    assert usd_per_host_hour(mine) == (0.4, "the target file")
    with pytest.raises(UserError, match=r"no price is known for c7i.2xlarge"):
        usd_per_host_hour(Target(kind="aws", aws=AwsSettings(instance_type="c7i.2xlarge")))


def test_the_whole_cost_is_shown(target: Target) -> None:
    assert target.aws is not None
    text = costs(target.aws, 55.04, "the table", FOUND)
    assert "2 x p5.48xlarge, on-demand, us-east-1" in text
    assert "110.08 USD an hour: 55.04 for each" in text
    assert "440.32 USD: everything is destroyed after 4 hours" in text
    spot = target.aws.model_copy(update={"capacity": "spot", "max_cost_usd": 100.0})
    assert "100.00 USD: everything" in costs(spot, 55.04, "the table", FOUND)
    assert "spot costs less" in costs(spot, 55.04, "the table", FOUND)


def test_a_target_gets_the_hosts_that_were_rented(target: Target, tmp_path: Path) -> None:
    rented(tmp_path, target)
    ready = cluster_hosts(target, tmp_path)
    assert [(host.name, host.reach) for host in ready.hosts] == [("slipway-1", "ec2.example.com")]
    assert ready.ssh is not None
    assert ready.ssh.user == "slipway"
    assert ready.ssh.identity == str(tmp_path / "clusters" / "slipway" / "key")
    assert ready.usd_per_hour == 55.04


def test_without_a_ready_cluster_with_time_left_there_are_no_hosts(target: Target, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no cluster"):
        cluster_hosts(target, tmp_path / "none")
    rented(tmp_path / "half", target, state="creating")
    with pytest.raises(UserError, match="half made"):
        cluster_hosts(target, tmp_path / "half")
    rented(tmp_path / "old", target, age=timedelta(hours=3.9))
    with pytest.raises(UserError, match="nearly reached"):
        cluster_hosts(target, tmp_path / "old")
