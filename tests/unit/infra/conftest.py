"""Settings of a cluster that could be made."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from infra.aws_cluster import Cluster, ClusterHost
from kit.target import AwsSettings

STARTED = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def settings() -> AwsSettings:
    return AwsSettings(cluster="blue", count=2, allow_ssh_from="203.0.113.7/32", max_hours=10, usd_per_hour=2.0)


@pytest.fixture
def cluster(settings: AwsSettings) -> Cluster:
    hosts = [
        ClusterHost(
            name=f"blue-{number}",
            instance_id=f"i-{number}",
            private_address=f"10.0.0.{number + 3}",
            public_address=f"198.51.100.{number}",
            public_name=f"ec2-{number}.example.com",
        )
        for number in (1, 2)
    ]
    return Cluster(
        name="blue",
        settings=settings,
        state="ready",
        user="slipway",
        image_id="ami-1",
        zone="us-east-1a",
        created=STARTED,
        usd_per_hour=2.0,
        hosts=hosts,
    )
