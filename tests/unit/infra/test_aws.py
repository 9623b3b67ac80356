"""What can be known of a rented cluster without renting one: limits, rules, records, first boot."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.aws import create_variables
from infra.aws_cluster import Cluster, ClusterFolder, inventory_of, limit_hours
from infra.aws_keys import host_key, make_keys, public_key, user_data_file, write_known_hosts, write_user_data
from infra.aws_rules import check_settings, error_of
from infra.guard import limit_reached
from kit.errors import RunFailure, UserError
from kit.target import AwsSettings


def hours_later(cluster: Cluster, hours: float) -> datetime:
    return cluster.created + timedelta(hours=hours)


def test_the_lower_limit_counts(settings: AwsSettings) -> None:
    assert limit_hours(settings, 2.0) == 10
    assert limit_hours(settings.model_copy(update={"max_cost_usd": 20.0}), 2.0) == 5
    assert limit_hours(settings.model_copy(update={"max_cost_usd": 4000.0}), 2.0) == 10


def test_a_limit_is_named_when_it_is_reached_and_not_before(cluster: Cluster) -> None:
    assert limit_reached(cluster, hours_later(cluster, 9.99)) is None
    reached = limit_reached(cluster, hours_later(cluster, 10))
    assert reached == "aws.max_hours: 10 is reached (10.00 hours, 40.00 USD) by the cluster blue"
    costly = cluster.model_copy(update={"settings": cluster.settings.model_copy(update={"max_cost_usd": 20.0})})
    assert "aws.max_cost_usd: 20 is reached (5.00 hours, 20.00 USD)" in str(
        limit_reached(costly, hours_later(costly, 5))
    )


def test_a_run_hears_of_the_limit_ten_minutes_earlier(cluster: Cluster) -> None:
    assert limit_reached(cluster, hours_later(cluster, 10 - 11 / 60), ahead=True) is None
    assert "nearly reached" in str(limit_reached(cluster, hours_later(cluster, 10 - 9 / 60), ahead=True))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"cluster": "Blue"}, "aws.cluster"),
        ({"cluster": "a b"}, "aws.cluster"),
        ({"network": "10.0.0.0/8"}, "aws.network"),
        ({"network": "10.0.0.1/16"}, "aws.network"),
        ({"allow_ssh_from": None}, "aws.allow_ssh_from"),
        ({"allow_ssh_from": "0.0.0.0/0"}, "aws.allow_ssh_from"),
        ({"allow_ssh_from": "my house"}, "aws.allow_ssh_from"),
        ({"private_addresses": ["10.0.0.9"]}, "aws.private_addresses"),
        ({"private_addresses": ["10.0.0.9", "10.0.0.9"]}, "aws.private_addresses"),
        ({"private_addresses": ["10.0.0.9", "10.9.0.9"]}, "aws.private_addresses"),
        ({"private_addresses": ["10.0.0.9", "10.0.0.3"]}, "aws.private_addresses"),
        ({"private_addresses": ["10.0.0.9", "nine"]}, "aws.private_addresses"),
    ],
)
def test_settings_that_cannot_be_right_are_named(settings: AwsSettings, changes: dict[str, object], named: str) -> None:
    with pytest.raises(UserError) as error:
        check_settings(settings.model_copy(update=changes))
    assert error.value.found.startswith(named)


def test_settings_that_can_be_right_pass(settings: AwsSettings) -> None:
    check_settings(settings)
    check_settings(settings.model_copy(update={"private_addresses": ["10.0.0.9", "10.0.0.10"]}))


@pytest.mark.parametrize(
    ("code", "kind", "word"),
    [
        ("NoCredentialsError", UserError, "no credentials"),
        ("ExpiredToken", UserError, "expired"),
        ("UnauthorizedSSOTokenError", UserError, "expired"),
        ("AuthFailure", UserError, "refused"),
        ("UnauthorizedOperation", UserError, "does not allow"),
        ("InvalidInstanceType", UserError, "aws.instance_type"),
        ("InvalidAMIID.NotFound", UserError, "aws.image_id"),
        ("EndpointConnectionError", RunFailure, "EndpointConnectionError"),
    ],
)
def test_what_aws_answers_is_said_in_three_parts(
    settings: AwsSettings, code: str, kind: type[Exception], word: str
) -> None:
    error = error_of(code, "as AWS says it", settings)
    assert isinstance(error, kind)
    assert word in error.found
    assert error.expected
    assert error.action


def test_a_record_comes_back_from_its_file_and_leaves_a_line_when_it_ends(cluster: Cluster, tmp_path: Path) -> None:
    folder = ClusterFolder(tmp_path, "blue")
    folder.make()
    with pytest.raises(UserError, match="being made"):
        folder.make()
    folder.write(cluster)
    assert folder.read() == cluster
    assert ClusterFolder.at(folder.path).read() == cluster
    folder.close(cluster, "asked")
    assert not folder.path.exists()
    line = json.loads((folder.clusters / "history.jsonl").read_text())
    assert line["cluster"] == "blue"
    assert line["why"] == "asked"


def test_hosts_are_named_by_what_means_the_right_address_inside_and_outside(cluster: Cluster, tmp_path: Path) -> None:
    folder = ClusterFolder(tmp_path, "blue")
    hosts = inventory_of(folder, cluster)["all"]["hosts"]
    assert hosts["blue-1"] == {"ansible_host": "ec2-1.example.com"}
    inside = cluster.settings.model_copy(update={"use_public_addresses": False})
    hosts = inventory_of(folder, cluster.model_copy(update={"settings": inside}))["all"]["hosts"]
    assert hosts["blue-1"] == {"ansible_host": "10.0.0.4"}


def test_host_keys_travel_as_user_data_and_are_known_before_the_first_connection(
    cluster: Cluster, tmp_path: Path
) -> None:
    folder = ClusterFolder(tmp_path, "blue")
    folder.make()
    make_keys(folder, ["blue-1", "blue-2"])
    write_known_hosts(folder, cluster)
    first, second = folder.known_hosts.read_text().splitlines()
    key = host_key(folder, "blue-1")
    assert first == f"blue-1,10.0.0.4,198.51.100.1,ec2-1.example.com {public_key(key)}"
    assert second.split()[1:] != first.split()[1:], "every host has a key of its own"
    path = write_user_data(folder, "blue-1", "slipway", cluster.until)
    text = path.read_text()
    assert text.startswith("#cloud-config\n")
    told = json.loads(text.removeprefix("#cloud-config\n"))
    assert told["ssh_keys"] == {"ed25519_private": key.read_text(), "ed25519_public": public_key(key)}
    assert told["users"][1]["ssh_authorized_keys"] == [folder.key.with_suffix(".pub").read_text().strip()]
    assert folder.key.read_text() not in text
    for secret in (folder.key, key, path):
        assert secret.stat().st_mode & 0o777 == 0o600
    assert folder.path.stat().st_mode & 0o777 == 0o700


def test_a_machine_ends_itself_at_the_limit(cluster: Cluster, tmp_path: Path) -> None:
    folder = ClusterFolder(tmp_path, "blue")
    folder.make()
    make_keys(folder, ["blue-1"])
    told = json.loads(write_user_data(folder, "blue-1", "root", cluster.until).read_text().partition("\n")[2])
    (command,) = told["bootcmd"]
    assert str(int(datetime(2026, 1, 1, 22, tzinfo=UTC).timestamp())) in command[2]
    assert "systemctl poweroff" in command[2]
    assert told["disable_root"] is False


def test_the_playbook_is_told_files_and_no_keys(cluster: Cluster, tmp_path: Path) -> None:
    folder = ClusterFolder(tmp_path, "blue")
    variables = create_variables(folder, cluster)
    assert variables["ends"] == "2026-01-01T22:00:00Z"
    assert variables["ssh_from"] == "203.0.113.7/32"
    assert [row["name"] for row in variables["instances"]] == ["blue-1", "blue-2"]
    assert variables["instances"][0]["user_data"] == str(user_data_file(folder, "blue-1"))
    assert variables["public_key"].endswith("key.pub")
