"""Which network interface a host's ranks talk over: the one that holds the address by which the others know it."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import psutil

ADDRESS = "SLIPWAY_HOST_ADDRESS"
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def interface_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that keep gloo and NCCL off the wrong interface; none where the address is of no interface here."""
    address = environment.get(ADDRESS)
    if not address:
        return {}
    name = interface_of(address)
    return {variable: name for variable in INTERFACES if variable not in environment} if name else {}


def interface_of(address: str) -> str | None:
    """The interface with an address, given as a number or a name; None where there is none."""
    try:
        numbers = {str(found[4][0]) for found in socket.getaddrinfo(address, None)}
    except OSError:
        return None
    for name, entries in psutil.net_if_addrs().items():
        if name != "lo" and any(entry.address in numbers for entry in entries):
            return name
    return None
