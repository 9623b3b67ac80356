"""Facts in, findings out: which host or pair is bad, why, and what to do. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kit.units import format_bytes

GIB = 1024**3
LEAST_DISK = 5 * GIB
LEAST_SHARED_MEMORY = GIB // 2
LEAST_OPEN_FILES = 1024
SLOW_LOOK_UP_SECONDS = 1.0
MOST_SKEW_SECONDS = 1.0
HOT_CELSIUS = 85
COMPARED = ("kernel", "driver", "cuda")
"""Facts that may differ without harm, and that explain much when they do."""

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        where: The host, or the two hosts of a pair, `a - b`; of a direction, `a -> b`.
        level: bad: a job would fail or be slow; warning: worth knowing.
        what: What was found, with its figure.
        action: What to do.
        blocks: Whether a job over all hosts would hang or fail because of it.
    """

    where: str
    level: Literal["bad", "warning"]
    what: str
    action: str
    blocks: bool = False

    def as_data(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def host_findings(host: str, facts: Facts, devices: int, cuda: bool, several: bool) -> list[Finding]:
    """What one host's own facts say.

    Args:
        host: Its name.
        facts: As launch/host/facts.py gives them.
        devices: Ranks that the target puts there.
        cuda: Whether each of them is to have a GPU.
        several: Whether the job spans several hosts.
    """
    found = [*_storage(host, facts), *_software(host, facts), *_limits(host, facts)]
    if not facts["workdir_writable"]:
        action = "choose another workdir in the target, or give the user the right to write there"
        found.append(Finding(host, "bad", f"{facts['workdir']} may not be written to", action))
    if not cuda and facts["cores"] < devices:
        words = f"{facts['cores']} cores for {devices} ranks"
        found.append(Finding(host, "warning", words, "lower devices_per_host: ranks that share a core are slow"))
    own = facts["own_name"]["addresses"]
    if several and own and all(address.startswith("127.") or address == "::1" for address in own):
        words = f"its own name, {facts['hostname']}, leads to {', '.join(own)}"
        action = "let /etc/hosts give its real address: gloo tells the other ranks what this name says"
        found.append(Finding(host, "warning", words, action))
    return found + (_gpus(host, facts, devices) if cuda else [])


def pod_findings(host: str, facts: Facts) -> list[Finding]:
    """What a rank of the probe says of a place that can't be asked by ssh."""
    return _storage(host, {**facts, "workdir": "the run directory"}) + _limits(host, facts)


def difference_findings(facts: Mapping[str, Facts]) -> list[Finding]:
    """Versions in which a host differs from most others: packages are bad, kernel and driver a warning."""
    found: list[Finding] = []
    packages = sorted({name for each in facts.values() for name in each["versions"]})
    for name in packages:
        have = {host: each["versions"].get(name) for host, each in facts.items()}
        found += _odd_ones(have, name, "bad", "install the same lock on every host: `slipway run` does it in mode venv")
    for name in COMPARED:
        have = {host: each.get(name) for host, each in facts.items()}
        found += _odd_ones(have, name, "warning", "bring the hosts to the same version")
    return found


def clock_findings(skews: Mapping[str, float | None]) -> list[Finding]:
    """Hosts whose clock is off this machine's by more than a second, for sure; positive is ahead."""
    return [
        Finding(host, "bad", f"clock {abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}", "let NTP or chrony run")
        for host, skew in skews.items()
        if skew is not None and abs(skew) > MOST_SKEW_SECONDS
    ]


def name_findings(facts: Mapping[str, Facts]) -> list[Finding]:
    """Names of other hosts that a host can't look up, or only slowly."""
    found = []
    for host, each in facts.items():
        for peer, answer in each["names"].items():
            if not answer["addresses"]:
                words = f"{peer} can't be looked up: {answer.get('error', 'no address')}"
                action = f"put {peer} into DNS or /etc/hosts of {host}, or write its IP address into the target"
                found.append(Finding(f"{host} -> {peer}", "bad", words, action))
            elif answer["seconds"] > SLOW_LOOK_UP_SECONDS:
                words = f"looking up {peer} takes {answer['seconds']:.1f} s"
                action = f"mend DNS on {host}, or write IP addresses into the target"
                found.append(Finding(f"{host} -> {peer}", "warning", words, action))
    return found


def port_findings(reached: Mapping[str, Mapping[str, Facts]]) -> list[Finding]:
    """Ordered pairs of hosts, from -> to, whose connection failed; a host that nobody reaches is named alone."""
    bad = {(a, b): str(answer["error"]) for a, to in reached.items() for b, answer in to.items() if "error" in answer}
    found = []
    for host in sorted({b for _, b in bad}):
        callers = [a for a, to in reached.items() if host in to]
        failed = {a: bad[a, host] for a in callers if (a, host) in bad}
        action = f"open the ports of {host} for the other hosts: training uses any port from 1024 up"
        if len(failed) == len(callers) > 1:
            words = f"none of the {len(callers)} other hosts reaches its ports: {next(iter(failed.values()))}"
            found.append(Finding(host, "bad", words, action))
        for caller, error in failed.items():
            found.append(Finding(f"{caller} -> {host}", "bad", f"port not reached: {error}", action, blocks=True))
    return found


def _storage(host: str, facts: Facts) -> list[Finding]:
    found = []
    if facts["disk_free_bytes"] < LEAST_DISK:
        words = f"{format_bytes(facts['disk_free_bytes'])} free at {facts['workdir']}"
        action = f"free some space ({format_bytes(LEAST_DISK)} at least), or choose another workdir in the target"
        found.append(Finding(host, "bad", words, action))
    shared = facts["shared_memory_bytes"]
    if shared is None or shared < LEAST_SHARED_MEMORY:
        words = f"/dev/shm has {format_bytes(shared)}" if shared is not None else "no /dev/shm"
        action = f"give it {format_bytes(LEAST_SHARED_MEMORY)} or more: mount -o remount,size=1G, or --shm-size"
        found.append(Finding(host, "bad", words, action))
    return found


def _limits(host: str, facts: Facts) -> list[Finding]:
    if facts["open_files"] >= LEAST_OPEN_FILES:
        return []
    words = f"at most {facts['open_files']} open files a process"
    return [Finding(host, "bad", words, f"raise `ulimit -n` to {LEAST_OPEN_FILES} or more, for ssh too")]


def _software(host: str, facts: Facts) -> list[Finding]:
    if "torch" in facts["versions"]:
        return []
    action = "install the lock on the host, or name a Python that has it under environment.python"
    return [Finding(host, "bad", "its Python has no torch", action, blocks=True)]


def _gpus(host: str, facts: Facts, devices: int) -> list[Finding]:
    gpus = facts["gpus"]
    found = []
    if len(gpus) < devices:
        words = f"{len(gpus)} GPUs that the driver lists, and the target wants {devices}"
        found.append(Finding(host, "bad", words, "see `nvidia-smi` there: the driver, or a GPU that fell off the bus"))
    for gpu in gpus:
        where, name = host, f"GPU {gpu['index']}"
        replace = "drain the host and have the GPU looked at"
        if gpu["ecc_uncorrected"]:
            found.append(Finding(where, "bad", f"{name}: {gpu['ecc_uncorrected']} uncorrected ECC errors", replace))
        if gpu["remapping_failed"]:
            found.append(Finding(where, "bad", f"{name}: remapping of memory rows failed", replace))
        if gpu["remapping_pending"]:
            found.append(Finding(where, "warning", f"{name}: memory rows wait to be remapped", "reset the GPU"))
        if gpu["slowed_by"]:
            words = f"{name}: clocks lowered by {', '.join(gpu['slowed_by'])}"
            found.append(Finding(where, "bad", words, "see to cooling and power"))
        if (gpu["temperature_celsius"] or 0) >= HOT_CELSIUS:
            found.append(Finding(where, "warning", f"{name}: {gpu['temperature_celsius']} C", "see to cooling"))
    if facts.get("xid"):
        words = f"the driver reported errors: {facts['xid'][-1]}"
        found.append(Finding(host, "bad", words, "look the Xid up in NVIDIA's table; reboot or replace"))
    return found


def _odd_ones(
    have: Mapping[str, str | None], name: str, level: Literal["bad", "warning"], action: str
) -> Iterable[Finding]:
    """The hosts that differ from the commonest value; where no value is commonest, from the first host's."""
    if len(set(have.values())) < 2:
        return
    usual = Counter(have.values()).most_common(1)[0][0]
    those = [host for host, value in have.items() if value == usual]
    for host, value in have.items():
        if value != usual:
            words = f"{name} {value or 'is missing'}, and {usual or 'none'} on {_listed(those)}"
            yield Finding(host, level, words, action)


def _listed(names: Sequence[str], most: int = 3) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
