"""Where a job runs: the target file, read by the launcher and (resolved) by every rank.

One model for every backend: what all share stands at the top, what only one backend needs is a section of its own name.
"""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from kit.config import Config
from kit.errors import UserError
from kit.hardware import available_cores

Kind = Literal["local", "ssh", "kubernetes", "aws"]
FEWEST_RANKS = 4
"""So many ranks run on any machine's processor, taking turns: a small layout can be tried everywhere."""
SECTION_OF_KIND: dict[str, tuple[str, ...]] = {"ssh": ("ssh",), "kubernetes": ("kubernetes",), "aws": ("ssh", "aws")}


class Host(Config):
    """One machine.

    Attributes:
        name: What logs, events and errors call it.
        address: Where the other hosts and the launcher reach it: a name or an IP address.
        port: Its SSH port; None: as ssh decides.
    """

    name: str
    address: str = ""
    port: int | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def reach(self) -> str:
        """The address, or else the name."""
        return self.address or self.name


class Environment(Config):
    """What a remote host runs the job in.

    Attributes:
        mode: venv: made from the lock on the host by the project's own set-up; python: an interpreter that is there
            already, named by `python`; container: `image`, run by `engine`.
        python: On the host; for venv the Python 3.11 that makes it, for container not used.
        torch: Which build of PyTorch a venv gets: cpu, or default (CUDA on Linux).
    """

    mode: Literal["venv", "python", "container"] = "venv"
    python: str = "python3.11"
    torch: Literal["cpu", "default"] = "default"
    image: str = ""
    engine: Literal["docker", "podman"] = "docker"


class Link(Config):
    """The network between hosts, as its owner knows it; scaling reports name it.

    Attributes:
        emulated: Whether the rate is made by a traffic shaper rather than by the wire.
    """

    name: str
    gigabits_per_second: float | None = pydantic.Field(default=None, gt=0)
    emulated: bool = False


class SshSettings(Config):
    """How hosts are logged in to. What is None is left to ssh and its configuration.

    Attributes:
        identity: The private key's file.
        known_hosts: The file with the hosts' keys; a host whose key is not there is refused, never added silently.
        lost_after_seconds: A host that has been silent for so long is named as lost.
        return_seconds: How long a job that may restart waits for a lost host.
    """

    user: str | None = None
    port: int | None = None
    identity: str | None = None
    known_hosts: str | None = None
    lost_after_seconds: float = pydantic.Field(default=20.0, ge=5)
    return_seconds: float = pydantic.Field(default=600.0, gt=0)


class KubernetesSettings(Config):
    """How pods are made.

    Attributes:
        context: Of the kubeconfig; None: its current one.
        kubeconfig: Its file; None: KUBECONFIG, or ~/.kube/config, or from inside a pod its service account.
        image: The container image, which has the code inside.
        image_pull_policy: As Kubernetes has it.
        claim: A PersistentVolumeClaim for runs, shards and checkpoints (ReadWriteMany where there are several pods).
        host_path: A folder of the nodes instead of a claim: for one node, as minikube and kind have.
        cpu, memory: Requests and limits of one pod, in Kubernetes' words.
        gpu_resource: The extended resource of an accelerator.
        shared_memory: Size of the memory-backed /dev/shm.
        secrets: Environment variable -> `secret/key`, by reference; values never pass through here.
        node_selector, tolerations, annotations: Passed on as they are.
        service_account: Of the pods.
        start_seconds: How long all pods may take until they run.
        keep_finished_seconds: How long a finished Job stays in the cluster.
    """

    context: str | None = None
    kubeconfig: str | None = None
    namespace: str = "default"
    image: str = "slipway:cpu"
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    claim: str | None = None
    host_path: str | None = None
    cpu: str = "2"
    memory: str = "4Gi"
    gpu_resource: str = "nvidia.com/gpu"
    shared_memory: str = "1Gi"
    secrets: dict[str, str] = {}
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    annotations: dict[str, str] = {}
    service_account: str | None = None
    run_as_user: int = 1000
    start_seconds: float = pydantic.Field(default=600.0, gt=0)
    keep_finished_seconds: int = pydantic.Field(default=86400, ge=0)

    @pydantic.model_validator(mode="after")
    def _one_volume(self) -> KubernetesSettings:
        if self.claim and self.host_path:
            raise ValueError("claim and host_path are both set; choose one")
        return self


class AwsSettings(Config):
    """Machines to rent for one cluster.

    Attributes:
        cluster: Its name; every resource is tagged with it.
        count: How many instances.
        endpoint_url: Another address of the API (an emulator); None: the provider's own.
        max_hours, max_cost_usd: The cluster is destroyed when one of them is reached.
        usd_per_hour: The price of one instance; None: from the table of prices.
        keep: Whether the cluster stays after the run that made it.
    """

    cluster: str = "slipway"
    region: str = "us-east-1"
    instance_type: str = "p5.48xlarge"
    count: int = pydantic.Field(default=2, ge=1)
    image_id: str | None = None
    disk_gib: int = pydantic.Field(default=500, ge=8)
    network: str = "10.0.0.0/16"
    private_addresses: list[str] = []
    allow_ssh_from: str | None = None
    endpoint_url: str | None = None
    use_public_addresses: bool = True
    capacity: Literal["on-demand", "spot"] = "on-demand"
    efa: bool = True
    usd_per_hour: float | None = pydantic.Field(default=None, gt=0)
    max_hours: float = pydantic.Field(default=24.0, gt=0)
    max_cost_usd: float | None = pydantic.Field(default=None, gt=0)
    keep: bool = False


class Target(Config):
    """A place that runs jobs. `auto` values are settled by `settle` before a run directory keeps them.

    Attributes:
        hosts: The machines of an ssh target, in the order in which ranks are placed on them.
        devices_per_host: How many ranks one host (or pod) runs.
        restarts: How often the job may start again after a rank or a host has died.
        workdir: On remote hosts: the folder that Slipway may fill.
        storage: A folder that every host sees under this path; None: every host keeps its own copy of a run.
        usd_per_hour: Price of one host (or pod), where the report shall name costs.
        stop_grace_seconds: How long a stop waits for the last checkpoint before it kills the processes.
    """

    kind: Kind = "local"
    hosts: list[Host] = []
    devices_per_host: int | Literal["auto"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads_per_process: int | Literal["auto"] = "auto"
    restarts: int = pydantic.Field(default=0, ge=0)
    stop_grace_seconds: float = pydantic.Field(default=120.0, gt=0)
    workdir: str = "~/slipway"
    storage: str | None = None
    environment: Environment = Environment()
    link: Link | None = None
    usd_per_hour: float | None = pydantic.Field(default=None, gt=0)
    ssh: SshSettings | None = None
    kubernetes: KubernetesSettings | None = None
    aws: AwsSettings | None = None

    @pydantic.model_validator(mode="after")
    def _sections_fit(self) -> Target:
        wanted = SECTION_OF_KIND.get(self.kind, ())
        for section in ("ssh", "kubernetes", "aws"):
            given = getattr(self, section) is not None
            if given and section not in wanted:
                raise ValueError(f"a section {section}, and kind is {self.kind}")
        if self.kind == "ssh" and not self.hosts:
            raise ValueError("kind ssh without hosts; list them under hosts")
        names = [host.name for host in self.hosts]
        if len(set(names)) != len(names):
            raise ValueError(f"a host is named twice among {', '.join(names)}")
        return self

    @property
    def remote(self) -> bool:
        """Whether the ranks run on other machines than the launcher's."""
        return self.kind != "local"

    def hosts_for(self, processes: int) -> int:
        """The number of hosts that so many ranks take.

        Raises:
            UserError: The ranks can't be spread evenly.
        """
        devices = self.devices_per_host
        assert isinstance(devices, int), "settle leaves no auto"
        count = -(-processes // devices)
        if processes % count:
            raise UserError(
                f"{processes} ranks on {count} hosts with {devices} places each",
                expected="as many ranks on every host",
                action=f"choose a multiple of {devices} ranks, or another devices_per_host",
            )
        return count

    def settle(self, processes: int, accelerators: int) -> Target:
        """Returns the target without `auto`.

        Args:
            processes: Number of ranks that this job starts.
            accelerators: Number of CUDA devices that this machine has; counts for a local target only.

        Raises:
            UserError: A remote target says `auto` where only its hosts could answer.
        """
        if self.remote:
            return self._settle_remote()
        device = self.device if self.device != "auto" else ("cuda" if accelerators else "cpu")
        cores = available_cores()
        # Ranks that share a machine fight for cores, and a curve over 1 and 2 ranks compares only at one thread each.
        threads = self.threads_per_process if self.threads_per_process != "auto" else (1 if processes > 1 else cores)
        devices = self.devices_per_host
        if devices == "auto":
            devices = accelerators if device == "cuda" else max(cores, FEWEST_RANKS)
        return self.model_copy(update={"device": device, "threads_per_process": threads, "devices_per_host": devices})

    def _settle_remote(self) -> Target:
        for key in ("devices_per_host", "device"):
            if getattr(self, key) == "auto":
                raise UserError(
                    f"a target of kind {self.kind} with {key}: auto",
                    expected="its value: auto asks this machine, and the ranks run on others",
                    action=f"write {key} into the target file; `slipway doctor --on TARGET` shows what the hosts have",
                )
        threads = self.threads_per_process
        if threads == "auto":
            threads = 8 if self.device == "cuda" else 1
        return self.model_copy(update={"threads_per_process": threads})
