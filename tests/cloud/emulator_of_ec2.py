"""An emulator of the EC2 API, as the tests see it: moto's server, and what lies in its account."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from infra import cloud_environment

# Whole words, because Ansible blots out credentials wherever it sees them in an answer.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAEMULATOR0000", "AWS_SECRET_ACCESS_KEY": "emulator-secret-0123456789"}
ACCOUNT = """
import boto3, json, sys
client = boto3.client("ec2", region_name="us-east-1", endpoint_url=sys.argv[1])
def ids(call, key, name):
    return sorted(row[name] for row in getattr(client, call)()[key])
rows = [i for r in client.describe_instances()["Reservations"] for i in r["Instances"]]
alive = [i for i in rows if i["State"]["Name"] != "terminated"]
def user_data(key):
    answer = client.describe_instance_attribute(InstanceId=key, Attribute="userData")
    return answer["UserData"].get("Value", "")
def shutdown(key):
    answer = client.describe_instance_attribute(InstanceId=key, Attribute="instanceInitiatedShutdownBehavior")
    return answer["InstanceInitiatedShutdownBehavior"]["Value"]
images = client.describe_images(Owners=["099720109477"])["Images"]
print(json.dumps({
    "resources": {
        "vpcs": ids("describe_vpcs", "Vpcs", "VpcId"), "subnets": ids("describe_subnets", "Subnets", "SubnetId"),
        "groups": ids("describe_security_groups", "SecurityGroups", "GroupId"),
        "gateways": ids("describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
        "tables": ids("describe_route_tables", "RouteTables", "RouteTableId"),
        "keys": ids("describe_key_pairs", "KeyPairs", "KeyPairId"),
        "volumes": ids("describe_volumes", "Volumes", "VolumeId"),
        "interfaces": ids("describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId"),
        "instances": sorted(i["InstanceId"] for i in alive),
    },
    "user_data": {i["PrivateIpAddress"]: user_data(i["InstanceId"]) for i in alive},
    "instances": [{
        "type": i["InstanceType"], "address": i["PrivateIpAddress"], "shutdown": shutdown(i["InstanceId"]),
        "tags": {t["Key"]: t["Value"] for t in i["Tags"]}, "lifecycle": i.get("InstanceLifecycle", "on-demand"),
        "disks": [b["DeviceName"] for b in i["BlockDeviceMappings"]],
    } for i in alive],
    "rules": [
        {"ports": [p.get("FromPort"), p.get("ToPort")], "from": [r["CidrIp"] for r in p["IpRanges"]],
         "groups": [g["GroupId"] == s["GroupId"] for g in p["UserIdGroupPairs"]]}
        for s in client.describe_security_groups()["SecurityGroups"] if s["GroupName"].startswith("slipway-")
        for p in s["IpPermissions"]],
    "image": images[0]["ImageId"],
}))
"""


@dataclass
class Emulator:
    """moto's server."""

    url: str
    process: subprocess.Popen[bytes]

    def account(self) -> dict[str, Any]:
        """Everything that is in the account."""
        command = [cloud_environment.BIN / "python", "-c", ACCOUNT, self.url]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)  # type: ignore[no-any-return]

    def resources(self) -> dict[str, list[str]]:
        """Ids of everything that could cost something or be left behind."""
        return self.account()["resources"]  # type: ignore[no-any-return]
