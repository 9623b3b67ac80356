"""One examination of a target: its hosts, the way between them, and the probe job through the target's executor."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kit.errors import RunFailure, SlipwayError
from kit.run.directory import RunDirectory
from kit.target import Host
from launch.console import Console
from launch.doctor.findings import (
    Finding,
    clock_findings,
    difference_findings,
    host_findings,
    name_findings,
    pod_findings,
    port_findings,
)
from launch.doctor.hosts import clock_skews, facts_of, forget, ports_reached, unreached
from launch.doctor.pairs import probe_findings
from launch.executors.local import HOST as HERE
from launch.executors.ssh import PLACES
from launch.executors.ssh_host import RemoteHost
from launch.executors.table import executor_for
from launch.host.facts import host_facts
from launch.job import Place
from launch.origin import run_key
from launch.outcome import last_failure
from launch.plan import Plan
from launch.prepare import job_of_run, prepare
from launch.supervise import execute

ROLE = "probe"
CALL_AGAIN = "mend it, then run the doctor again"


@dataclass
class Examination:
    """What was found out, and what is wrong.

    Attributes:
        hosts: Facts by host; only of those that answered.
        skews: Seconds that a host's clock is certainly off.
        reached: from -> to -> how the connection went.
        probe: The content of probe.json.
        hosts_of_ranks: The host of every rank of the probe.
        run: The probe's run directory.
        left_out: What was not examined, and why.
    """

    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    skews: dict[str, float | None] = field(default_factory=dict)
    reached: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    probe: dict[str, Any] | None = None
    hosts_of_ranks: list[str] = field(default_factory=list)
    run: RunDirectory | None = None
    findings: list[Finding] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether nothing is bad."""
        return not any(finding.level == "bad" for finding in self.findings)

    def add_bad(self, where: str, what: str, action: str = CALL_AGAIN) -> None:
        """One more bad thing."""
        self.findings.append(Finding(where, "bad", what, action))


class Doctor:
    """Examines one target by a plan of the probe."""

    def __init__(self, plan: Plan, devices: int, runs: Path, console: Console, debug: bool = False) -> None:
        """Args:
        plan: Of the probe on the target.
        devices: Ranks that the target puts on a host in training; the probe may take fewer.
        runs: The folder of runs.
        """
        self._plan, self._devices, self._runs, self._console, self._debug = plan, devices, runs, console, debug
        self._found = Examination()

    def examine(self, quick: bool) -> Examination:
        """Everything, or with `quick` without the probe job."""
        if not self._plan.target.remote:
            self._found.hosts[HERE] = host_facts(str(self._runs))
            self._judge_hosts()
        elif self._plan.target.hosts:
            self._examine_hosts()
        if quick:
            self._found.left_out.append("the probe job: --quick")
        elif reason := self._blocked():
            self._found.left_out.append(f"the probe job: {reason}")
        else:
            self._probe()
        return self._found

    def _examine_hosts(self) -> None:
        """Everything that ssh can find out; from here on the plan has only the hosts that can be used."""
        target = self._plan.target
        self._console.say(f"Reaching {len(target.hosts)} hosts")
        silent = unreached(target, target.hosts)
        for name, words in silent.items():
            host = next(host for host in target.hosts if host.name == name)
            action = f"see that {host.reach} is on, that sshd runs, and that known_hosts has its key"
            self._found.add_bad(name, f"not reached by ssh: {words}", action)
        self._keep([host for host in target.hosts if host.name not in silent])
        self._found.skews = clock_skews(target, self._plan.target.hosts)
        with tempfile.TemporaryDirectory(prefix="slipway-doctor-") as folder:
            remotes = self._prepared(Path(folder))
            try:
                self._ask(remotes)
            finally:
                forget(remotes)

    def _ask(self, remotes: Sequence[RemoteHost]) -> None:
        self._console.say(f"Asking {len(remotes)} hosts what they have, and trying their ports from one another")
        self._found.hosts, mute = facts_of(remotes, self._plan.target.workdir)
        for name, words in mute.items():
            self._found.add_bad(name, words)
        self._judge_hosts()
        self._found.findings += clock_findings(self._found.skews)
        remotes = [remote for remote in remotes if remote.name not in mute]
        self._keep([remote.host for remote in remotes])
        if len(remotes) > 1:
            self._found.reached, mute = ports_reached(remotes)
            for name, words in mute.items():
                self._found.add_bad(name, f"ports not tried: {words}")
            self._found.findings += port_findings(self._found.reached)

    def _judge_hosts(self) -> None:
        facts, cuda = self._found.hosts, self._plan.target.device == "cuda"
        for name, each in facts.items():
            self._found.findings += host_findings(name, each, self._devices, cuda, several=len(facts) > 1)
        self._found.findings += difference_findings(facts) + name_findings(facts)

    def _prepared(self, folder: Path) -> list[RemoteHost]:
        """The hosts with the project's code on them; one that can't be prepared is named and left out."""
        while self._plan.target.hosts:
            job = job_of_run(prepare(self._plan, folder, {}, run_key(self._plan, {}), ROLE))
            try:
                executor_for(job.target).prepare(job, self._console.say)
            except SlipwayError as error:
                bad = next((host for host in job.target.hosts if f"host {host.name}" in error.found), None)
                self._found.add_bad(bad.name if bad else "hosts", error.found, error.action)
                self._keep([host for host in job.target.hosts if bad and host != bad])
                continue
            places = json.loads((job.run / "processes" / PLACES).read_text(encoding="utf-8"))
            hosts = [host for host in job.target.hosts if host.name in places]
            return [RemoteHost(job.target, host, Place(**places[host.name])) for host in hosts]
        return []

    def _keep(self, hosts: list[Host]) -> None:
        """Go on with these hosts alone, as many ranks on each as before."""
        plan = self._plan
        assert plan.layout is not None
        if len(hosts) == len(plan.target.hosts):
            return
        per_host = int(plan.target.devices_per_host)
        ranks = min(plan.processes, per_host * len(hosts))
        target = plan.target.model_copy(update={"hosts": hosts})
        layout = plan.layout.model_copy(update={"data": max(ranks, 1)})
        config = {**plan.config, "layout": layout.model_dump(mode="json")}
        self._plan = replace(plan, target=target, layout=layout, config=config)

    def _blocked(self) -> str | None:
        """Why the probe would not come to an end; None: it would."""
        remote_hosts = self._plan.target.kind != "kubernetes" and self._plan.target.remote
        if remote_hosts and not self._plan.target.hosts:
            return "no host to run it on"
        bad = next((finding for finding in self._found.findings if finding.blocks), None)
        return f"it would hang or fail ({bad.where}: {bad.what})" if bad else None

    def _probe(self) -> None:
        """The probe job, as any run; its measurements become findings."""
        run = prepare(self._plan, self._runs, {}, run_key(self._plan, {}), ROLE)
        self._found.run = run
        self._console.say(f"Probing with {self._plan.processes} ranks: run {run.id}")
        try:
            code = execute(run, self._console, debug=self._debug)
        except RunFailure as error:
            self._found.add_bad("probe", error.found, error.action)
            return
        file = run.artifacts / "probe.json"
        if code or not file.is_file():
            failure = last_failure(run) or {}
            words = str(failure.get("found", "the probe job left no measurements"))
            self._found.add_bad("probe", words, str(failure.get("action", f"see `slipway logs {run.id}`")))
            return
        probe = json.loads(file.read_text(encoding="utf-8"))
        self._found.probe, self._found.hosts_of_ranks = probe, self._hosts_of_ranks(probe)
        if not self._found.hosts:
            pods = dict(zip(self._found.hosts_of_ranks, probe["ranks"], strict=True))
            self._found.findings += [finding for name, facts in pods.items() for finding in pod_findings(name, facts)]
        link = self._plan.target.link
        rate = link.gigabits_per_second if link else None
        self._found.findings += probe_findings(probe, self._found.hosts_of_ranks, rate)

    def _hosts_of_ranks(self, probe: dict[str, Any]) -> list[str]:
        """By the target's names where it names hosts, else by what the ranks call their own."""
        target, ranks = self._plan.target, range(len(probe["ranks"]))
        if not target.remote:
            return [HERE for _ in ranks]
        if not target.hosts:
            return [str(facts["host"]) for facts in probe["ranks"]]
        per_host = len(ranks) // target.hosts_for(len(ranks))
        return [target.hosts[rank // per_host].name for rank in ranks]
