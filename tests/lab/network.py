"""A switch and its cables: a bridge in a network namespace of its own, joined to every host and to this machine."""

from __future__ import annotations

import json
import random
import subprocess

SWITCH, BRIDGE, CARD = "sw", "br0", "eth0"
CONTROLLER = 254  # this machine's last number in the subnet


def ip(*words: str, check: bool = True) -> str:
    """Run `ip`; its output."""
    result = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert not check or result.returncode == 0, f"ip {' '.join(words)}: {result.stderr.strip()}"
    return result.stdout


def free_subnet() -> str:
    """The first three numbers of a /24 that no route of this machine has."""
    taken = {str(route["dst"]) for route in json.loads(ip("-j", "route", "show") or "[]")}
    while True:
        subnet = f"10.{random.SystemRandom().randrange(100, 250)}.{random.SystemRandom().randrange(1, 250)}"
        if not any(route.startswith(subnet + ".") for route in taken):
            return subnet


class Network:
    """One subnet.

    Args:
        prefix: Begins the name of everything that is made; short, since an interface's name has 15 characters.
        subnet: The first three numbers of its addresses.
    """

    def __init__(self, prefix: str, subnet: str) -> None:
        self.prefix, self.subnet = prefix, subnet

    def namespace(self, name: str) -> str:
        """The network namespace of a host, or of the switch."""
        return f"{self.prefix}-{name}"

    def address(self, number: int) -> str:
        """The address of the host with a number."""
        return f"{self.subnet}.{number}"

    def open(self) -> None:
        """Make the switch and this machine's own cable to it."""
        switch = self.namespace(SWITCH)
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
        ip("-n", switch, "link", "set", BRIDGE, "up")
        ip("link", "add", self.prefix, "type", "veth", "peer", "name", "controller", "netns", switch)
        ip("-n", switch, "link", "set", "controller", "master", BRIDGE, "up")
        ip("addr", "add", f"{self.address(CONTROLLER)}/24", "dev", self.prefix)
        ip("link", "set", self.prefix, "up")

    def close(self) -> None:
        """Remove everything that carries the prefix."""
        ip("link", "del", self.prefix, check=False)
        for entry in json.loads(ip("-j", "netns", "list") or "[]"):
            if entry["name"].startswith(self.prefix + "-"):
                ip("netns", "del", entry["name"], check=False)

    def plug(self, name: str, number: int) -> None:
        """Give a host a namespace with a card in it; the card's hardware address is the same every time."""
        own, switch = self.namespace(name), self.namespace(SWITCH)
        ip("netns", "add", own)
        hardware = f"02:00:0a:{int(self.subnet.split('.')[1]):02x}:{int(self.subnet.split('.')[2]):02x}:{number:02x}"
        ip("-n", own, "link", "add", CARD, "address", hardware, "type", "veth", "peer", "name", name, "netns", switch)
        ip("-n", switch, "link", "set", name, "master", BRIDGE, "up")
        ip("-n", own, "addr", "add", f"{self.address(number)}/24", "dev", CARD)
        ip("-n", own, "link", "set", CARD, "up")
        ip("-n", own, "link", "set", "lo", "up")
        ip("-n", own, "route", "add", "default", "via", self.address(CONTROLLER))

    def unplug(self, name: str) -> None:
        """Take a host's card and namespace away: what it had open falls silent, nobody is told."""
        ip("-n", self.namespace(SWITCH), "link", "del", name, check=False)
        ip("netns", "del", self.namespace(name), check=False)

    def cut(self, name: str) -> None:
        """Take the cable out at the switch."""
        ip("-n", self.namespace(SWITCH), "link", "set", name, "down", check=False)

    def join(self, name: str) -> None:
        """Put the cable back."""
        ip("-n", self.namespace(SWITCH), "link", "set", name, "up")

    def shape(self, name: str, rate: str | None) -> None:
        """Limit a host's card in both directions to a rate as `tc` writes it (`1gbit`); None: no limit."""
        for namespace, device in ((self.namespace(name), CARD), (self.namespace(SWITCH), name)):
            place = ["tc", "-n", namespace, "qdisc"]
            if rate is None:
                subprocess.run([*place, "del", "dev", device, "root"], capture_output=True, check=False)
                continue
            limit = ["tbf", "rate", rate, "burst", "256kb", "latency", "50ms"]
            subprocess.run([*place, "replace", "dev", device, "root", *limit], check=True)
