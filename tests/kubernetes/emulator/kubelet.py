"""The nodes of the EMULATED cluster: every pod's container really runs, as a process in namespaces (see sandbox.py)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from .faults import Faults
from .store import Body, Store, condition, set_condition, timestamp

CONTAINER = "slipway"
INDEX = "batch.kubernetes.io/job-completion-index"
PROJECT = Path(__file__).resolve().parents[3]
POLL_SECONDS = 0.05


class Container:
    """A pod's container: its process, its log, and how far the log was when."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.log.touch()
        self.sizes: list[tuple[float, int]] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.pid = 0
        self.ended = False

    def signal(self, number: signal.Signals) -> None:
        if self.pid and not self.ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def freeze(self) -> None:
        """The node is silent: nothing runs on, nothing is said."""
        if self.pid and not self.ended:
            for process in [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]:
                process.suspend()

    def offset_of(self, since_seconds: float) -> int:
        """Where the lines of the last seconds begin."""
        then = time.monotonic() - since_seconds
        return max([size for at, size in self.sizes if at <= then], default=0)


class Kubelet:
    """Runs pods. `volume` stands for every claim and every folder of a node."""

    def __init__(self, store: Store, faults: Faults, folder: Path, nodes: int) -> None:
        self.store, self.faults, self.folder, self.nodes = store, faults, folder, nodes
        self.volume = folder / "volume"
        self.volume.mkdir(parents=True)
        self.hosts = folder / "hosts"
        self.hosts.write_text("127.0.0.1 localhost\n")
        self.containers: dict[str, Container] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.addresses: dict[str, str] = {}
        words = ["unshare", "--net", "sh", "-c", "ip link set lo up && exec sleep infinity"]
        self.network = subprocess.Popen(words)

    def notice(self) -> None:
        """Take on pods that are new."""
        for pod in self.store.select("Pod", self._namespace()):
            uid = pod["metadata"]["uid"]
            if uid not in self.tasks:
                self.tasks[uid] = asyncio.create_task(self._run(pod))
        self._write_hosts()

    def close(self) -> None:
        """End every process."""
        for task in self.tasks.values():
            task.cancel()
        for container in self.containers.values():
            container.signal(signal.SIGKILL)
            if container.process is not None:
                container.process.wait(10)
        self.network.kill()
        self.network.wait()

    def node_of(self, pod: Body) -> str:
        """The node that a pod is on."""
        return str(pod["spec"].get("nodeName", ""))

    def _namespace(self) -> str:
        return "slipway-test"

    async def _run(self, pod: Body) -> None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        container = Container(self.folder / "pods" / uid) if self._make_folder(uid) else None
        assert container is not None
        self.containers[uid] = container
        if not await self._prepare(pod):
            await self._delete_when_asked(pod)
            return
        self._start(pod, container)
        while not container.pid:
            await asyncio.sleep(0.01)
            self._read_pid(container)
        self._status(name, uid, "Running", {"running": {"startedAt": timestamp()}}, ready=True)
        code = await self._until_ended(pod, container)
        container.ended = True
        if self.node_of(self._now(name, uid) or pod) in self.faults.silent_nodes:
            await self._delete_when_asked(pod)
            return
        reason = "Completed" if code == 0 else "Error"
        ended = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": timestamp()}}
        self._status(name, uid, "Succeeded" if code == 0 else "Failed", ended, ready=False)
        await self._delete_when_asked(pod)

    def _make_folder(self, uid: str) -> bool:
        (self.folder / "pods" / uid / "root").mkdir(parents=True)
        return True

    def _now(self, name: str, uid: str) -> Body | None:
        found = self.store.objects.get(("Pod", self._namespace(), name))
        return found if found and found["metadata"]["uid"] == uid else None

    async def _prepare(self, pod: Body) -> bool:
        """Schedule, pull, mount. False where the pod was deleted before its container could start."""
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        index = int(pod["metadata"]["labels"].get(INDEX, 0))
        while index in self.faults.unschedulable:
            message = f"0/{self.nodes} nodes are available: {self.nodes} Insufficient cpu."
            if not self._wait_with(name, uid, None, condition("PodScheduled", False, "Unschedulable", message)):
                return False
            await asyncio.sleep(POLL_SECONDS)
        if not self._wait_with(name, uid, "ContainerCreating", condition("PodScheduled", True), f"node-{index}"):
            return False
        await asyncio.sleep(self.faults.slow_start_seconds.get(index, 0))
        image = pod["spec"]["containers"][0]["image"]
        began = time.monotonic()
        while self.faults.images is not None and image not in self.faults.images:
            word = "ErrImagePull" if time.monotonic() - began < 0.5 else "ImagePullBackOff"
            message = f'failed to pull image "{image}": not found'
            if not self._wait_with(name, uid, word, None, message=message):
                return False
            await asyncio.sleep(POLL_SECONDS)
        while missing := self._missing(pod):
            word = "CreateContainerConfigError" if missing.startswith("secret") else "ContainerCreating"
            if not self._wait_with(name, uid, word, None, message=missing):
                return False
            await asyncio.sleep(POLL_SECONDS)
        now = self._now(name, uid)
        return now is not None and "deletionTimestamp" not in now["metadata"]

    def _wait_with(
        self, name: str, uid: str, word: str | None, new: Body | None, node: str = "", message: str = ""
    ) -> bool:
        """Put a reason for waiting into the status, where it isn't there; False where the pod was deleted."""
        pod = self._now(name, uid)
        if pod is None or "deletionTimestamp" in pod["metadata"]:
            return False
        waiting = {"waiting": {"reason": word, "message": message}} if word else None
        there = (pod["status"].get("containerStatuses") or [{}])[0].get("state")
        conditions = [item for item in pod["status"].get("conditions", []) if new and item["type"] == new["type"]]
        same = bool(conditions) and conditions[0]["status"] == new["status"] if new else True
        if there == waiting and same and not node:
            return True

        def change(body: Body) -> None:
            if node:
                body["spec"]["nodeName"] = node
            if new:
                set_condition(body, new)
            if waiting:
                body["status"]["containerStatuses"] = [{"name": CONTAINER, "state": waiting, "ready": False}]

        self.store.change("Pod", self._namespace(), name, change)
        return True

    def _missing(self, pod: Body) -> str:
        """What the pod names and the namespace doesn't have."""
        for volume in pod["spec"]["volumes"]:
            name = volume.get("configMap", {}).get("name")
            if name and ("ConfigMap", self._namespace(), name) not in self.store.objects:
                return f'configmap "{name}" not found'
        for variable in pod["spec"]["containers"][0].get("env") or ():
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference and ("Secret", self._namespace(), reference["name"]) not in self.store.objects:
                return f'secret "{reference["name"]}" not found'
        return ""

    def _start(self, pod: Body, container: Container) -> None:
        spec = pod["spec"]["containers"][0]
        index = pod["metadata"]["labels"].get(INDEX)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(PROJECT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        for variable in spec.get("env") or ():
            environment[variable["name"]] = self._value(variable)
        if index is not None:
            environment["JOB_COMPLETION_INDEX"] = index
        data = {
            "root": str(container.folder / "root"),
            "mounts": {m["mountPath"]: self._source(pod, m["name"], container) for m in spec["volumeMounts"]},
            "hosts": str(self.hosts),
            "hostname": pod["spec"].get("hostname") or pod["metadata"]["name"],
            "network": f"/proc/{self.network.pid}/ns/net",
            "command": spec["command"],
            "environment": environment,
            "working_directory": "/slipway",
            "pid_file": str(container.folder / "pid"),
        }
        path = container.folder / "spec.json"
        path.write_text(json.dumps(data))
        with container.log.open("wb") as log:
            words = [sys.executable, str(Path(__file__).with_name("sandbox.py")), str(path)]
            container.process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _value(self, variable: dict[str, Any]) -> str:
        if "value" in variable:
            return str(variable["value"])
        reference = variable["valueFrom"]["secretKeyRef"]
        return str(self.store.get("Secret", self._namespace(), reference["name"])["stringData"][reference["key"]])

    def _source(self, pod: Body, name: str, container: Container) -> str:
        """What is mounted for a volume of the pod: a folder of this machine, or `tmpfs`."""
        volume = next(item for item in pod["spec"]["volumes"] if item["name"] == name)
        if "configMap" in volume:
            folder = container.folder / "config"
            folder.mkdir()
            config = self.store.get("ConfigMap", self._namespace(), volume["configMap"]["name"])
            for file, text in config["data"].items():
                (folder / file).write_text(text, encoding="utf-8")
            return str(folder)
        if volume.get("emptyDir", {}).get("medium") == "Memory":
            return "tmpfs"
        if "emptyDir" in volume:
            folder = container.folder / name
            folder.mkdir()
            return str(folder)
        return str(self.volume)

    def _read_pid(self, container: Container) -> None:
        path = container.folder / "pid"
        if path.exists() and path.read_text():
            container.pid = int(path.read_text())
        elif container.process is not None and container.process.poll() is not None:
            container.pid = container.process.pid

    async def _until_ended(self, pod: Body, container: Container) -> int:
        """Wait for the container; pass on a deletion as kubelets do: SIGTERM, and SIGKILL after the grace."""
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        asked: float | None = None
        assert container.process is not None
        while container.process.poll() is None:
            container.sizes.append((time.monotonic(), container.log.stat().st_size))
            now = self._now(name, uid)
            if now is not None and self.node_of(now) in self.faults.silent_nodes:
                await asyncio.sleep(POLL_SECONDS)
                continue
            if now is None:
                container.signal(signal.SIGKILL)  # forgotten by force
            elif "deletionTimestamp" in now["metadata"]:
                if asked is None:
                    asked = time.monotonic()
                    container.signal(signal.SIGTERM)
                if time.monotonic() - asked > now["metadata"]["deletionGracePeriodSeconds"]:
                    container.signal(signal.SIGKILL)
            await asyncio.sleep(POLL_SECONDS)
        return container.process.returncode

    async def _delete_when_asked(self, pod: Body) -> None:
        """The object goes when somebody has deleted it and its node has confirmed the end."""
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        while (now := self._now(name, uid)) is not None:
            silent = self.node_of(now) in self.faults.silent_nodes
            if "deletionTimestamp" in now["metadata"] and not silent:
                self.store.remove("Pod", self._namespace(), name)
                return
            await asyncio.sleep(POLL_SECONDS)

    def _status(self, name: str, uid: str, phase: str, state: Body, ready: bool) -> None:
        def change(body: Body) -> None:
            body["status"]["phase"] = phase
            body["status"]["containerStatuses"] = [{"name": CONTAINER, "state": state, "ready": ready}]
            set_condition(body, condition("Ready", ready))
            set_condition(body, condition("ContainersReady", ready))

        if self._now(name, uid) is not None:
            self.store.change("Pod", self._namespace(), name, change)

    def _write_hosts(self) -> None:
        """What the cluster's DNS would say: a pod's name below its headless Service, published before it is ready."""
        lines = ["127.0.0.1 localhost"]
        for pod in self.store.select("Pod", self._namespace()):
            spec = pod["spec"]
            address = self.addresses.setdefault(pod["metadata"]["uid"], f"127.0.1.{len(self.addresses) + 1}")
            host = spec.get("hostname") or pod["metadata"]["name"]
            service = self.store.objects.get(("Service", self._namespace(), spec.get("subdomain", "")))
            chosen = service and service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
            lines.append(f"{address} {host}" + (f" {host}.{spec['subdomain']}" if chosen else ""))
        text = "\n".join(lines) + "\n"
        if text != self.hosts.read_text():
            self.hosts.write_text(text)
