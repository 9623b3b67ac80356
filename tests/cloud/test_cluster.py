"""A cluster's whole life on an emulator of EC2, with hosts in namespaces in the place of the instances.

The emulator knows instances but boots none. So the test does what cloud-init would: it takes each instance's user data
from the emulator and gives the host with the same address the host key and the login that stand there.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import Command, until
from emulator_of_ec2 import Emulator
from lab.host_lab import HostLab, missing

from infra.aws_cluster import ClusterFolder
from kit.config import dump, read_yaml
from kit.run.directory import list_runs

pytestmark = [pytest.mark.cloud, pytest.mark.hosts, pytest.mark.slow]
Life = dict[str, Any]


def target_of(lab: HostLab, emulator: Emulator) -> dict[str, Any]:
    """Two rented instances with the addresses of the lab's hosts."""
    addresses = [lab.address(host) for host in lab.hosts]
    first, second, *_ = addresses[0].split(".")
    usual = read_yaml(lab.target())
    return {
        **{key: usual[key] for key in ("devices_per_host", "device", "threads_per_process", "environment", "workdir")},
        "kind": "aws",
        "ssh": {"user": "root"},
        "aws": {
            "cluster": "trial",
            "instance_type": "c7i.2xlarge",
            "usd_per_hour": 0.357,
            "efa": False,
            "disk_gib": 60,
            "image_id": emulator.account()["image"],
            "network": f"{first}.{second}.0.0/16",
            "private_addresses": addresses,
            "use_public_addresses": False,
            "allow_ssh_from": f"{addresses[0].rpartition('.')[0]}.254/32",
            "endpoint_url": emulator.url,
            "max_hours": 1,
            "max_cost_usd": 0.5,
        },
    }


def boot_from_user_data(lab: HostLab, user_data: dict[str, str]) -> None:
    """What cloud-init does at a first boot, as far as SSH goes."""
    for host in lab.hosts:
        machine = lab.machines[host]
        settings = json.loads(base64.b64decode(user_data[machine.address]).decode().removeprefix("#cloud-config\n"))
        key = machine.folder / "ssh" / "ssh_host_ed25519_key"
        machine.poweroff()
        key.write_text(settings["ssh_keys"]["ed25519_private"])
        key.with_suffix(".pub").write_text(settings["ssh_keys"]["ed25519_public"])
        (machine.home / ".ssh" / "authorized_keys").write_text("\n".join(settings["ssh_authorized_keys"]) + "\n")
        machine.boot()


@pytest.fixture(scope="module")
def life(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    reason = missing()
    if reason:
        pytest.skip(reason)
    command = Command(tmp_path_factory.mktemp("cloud"))
    command.make_data()
    seen: Life = {"before": emulator.resources(), "runs": command.runs}
    with HostLab(2) as lab:
        target = command.folder / "rented.yaml"
        target.write_text(dump(target_of(lab, emulator)))
        seen["addresses"] = [lab.address(host) for host in lab.hosts]
        on = ("--on", str(target))
        try:
            # Silent until they have booted from their user data: with their old keys `up` would rightly refuse them.
            for host in lab.hosts:
                lab.drop(host)
            seen["early"] = command.run("run", command.recipe("data"), *on)
            up = command.start("up", *on, "--yes", "--json")

            def booting() -> bool:
                assert up.poll() is None, up.communicate()[0]
                return ClusterFolder(command.runs, "trial").known_hosts.exists()

            until(booting, 120)
            seen["account"] = emulator.account()
            boot_from_user_data(lab, seen["account"]["user_data"])
            seen["up"] = up.communicate(timeout=90)[0]
            assert up.returncode == 0, seen["up"]
            folder = ClusterFolder(command.runs, "trial")
            seen["inventory"] = folder.inventory.read_text()
            seen["modes"] = {path.name: path.stat().st_mode & 0o777 for path in [folder.path, folder.key]}
            seen["again"] = command.run("up", *on, "--yes", "--json")
            seen["ssh"] = _hostname_by_ssh(folder, seen["addresses"][1])
            seen["run"] = command.run("run", command.recipe("data"), *on)
            seen["down"] = command.run("down", *on, "--json")
            seen["after"] = emulator.resources()
            seen["folder_left"] = folder.path.exists()
            seen["second_down"] = command.run("down", *on, "--json")
            yield seen
        finally:
            command.end_all()
            if ClusterFolder(command.runs, "trial").exists():
                command.run("down", *on)


def _hostname_by_ssh(folder: ClusterFolder, address: str) -> str:
    words = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-i", str(folder.key)]
    words += ["-o", f"UserKnownHostsFile={folder.known_hosts}", f"root@{address}", "hostname"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def answer(output: str) -> dict[str, Any]:
    """The object that --json prints last."""
    return json.loads(output.strip().splitlines()[-1])  # type: ignore[no-any-return]


def test_a_run_rents_nothing_without_a_yes(life: Life) -> None:
    code, output = life["early"]
    assert code == 2
    assert "0.71 USD an hour" in output
    assert "--yes" in output


def test_the_price_is_shown_before_anything_is_made(life: Life) -> None:
    text = life["up"]
    assert text.index("0.71 USD an hour") < text.index("Network")
    assert "At most    0.50 USD: everything is destroyed after 0.7003 hours" in text


def test_up_lists_the_instances_and_their_hosts_can_be_logged_in_to(life: Life) -> None:
    made = answer(life["up"])
    assert made["created"]
    assert [host["private_address"] for host in made["hosts"]] == life["addresses"]
    for address in life["addresses"]:
        assert f"ansible_host: {address}" in life["inventory"]
    assert life["ssh"] == "n2"
    assert life["modes"] == {"trial": 0o700, "key": 0o600}


def test_instances_are_tagged_and_end_themselves(life: Life) -> None:
    for instance in life["account"]["instances"]:
        assert instance["tags"]["slipway-cluster"] == "trial"
        assert instance["tags"]["slipway-until"] == answer(life["up"])["until"][:19] + "Z"
        assert instance["shutdown"] == "terminate"
        assert instance["type"] == "c7i.2xlarge"


def test_the_firewall_lets_in_ssh_from_one_place_and_the_hosts_themselves(life: Life) -> None:
    rules = sorted(life["account"]["rules"], key=lambda rule: bool(rule["groups"]))
    assert [rule["ports"] for rule in rules] == [[22, 22], [None, None]] or rules[1]["ports"] == [-1, -1]
    assert rules[0]["from"] == [life["addresses"][0].rpartition(".")[0] + ".254/32"]
    assert rules[1]["groups"] == [True]
    assert rules[1]["from"] == []


def test_a_second_up_finds_the_cluster(life: Life) -> None:
    code, output = life["again"]
    assert code == 0
    assert answer(output)["created"] is False
    assert answer(output)["hosts"] == answer(life["up"])["hosts"]


def test_a_training_runs_on_both_hosts(life: Life) -> None:
    code, output = life["run"]
    assert code == 0, output
    run = list_runs(life["runs"])[-1]
    assert len(list(run.logs.glob("rank-*.log"))) == 2
    assert read_yaml(run.target_path)["usd_per_hour"] == 0.357


def test_down_leaves_nothing_behind(life: Life) -> None:
    code, output = life["down"]
    assert code == 0, output
    assert answer(output)["removed"]["instances"] == 2
    assert answer(output)["left"] == 0
    assert life["after"] == life["before"]
    assert not life["folder_left"]
    (line,) = (Path(life["runs"]) / "clusters" / "history.jsonl").read_text().splitlines()
    assert json.loads(line)["instances"] == 2


def test_a_second_down_finds_nothing_and_says_so(life: Life) -> None:
    code, output = life["second_down"]
    assert code == 0
    assert answer(output)["removed"] == {}
