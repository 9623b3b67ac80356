"""One EMULATED cluster: server, controllers and nodes in a thread of the test, with its own kubeconfig."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from aiohttp import web

from .controller import Controller
from .faults import Faults
from .kubelet import INDEX, Kubelet
from .server import Server
from .store import Body, Store, condition, set_condition

NAMESPACE = "slipway-test"
Result = TypeVar("Result")


def reason_it_cannot_run() -> str | None:
    """Why there can't be one here; None where there can."""
    if os.geteuid() != 0:
        return "the emulated cluster's containers are namespaces, which need root"
    missing = [tool for tool in ("unshare", "nsenter", "ip") if shutil.which(tool) is None]
    return f"the emulated cluster needs {', '.join(missing)}" if missing else None


class EmulatedCluster:
    """Runs until it is closed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults = Faults()
        self.kubeconfig = folder / "kubeconfig"
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="emulated-cluster", daemon=True)
        self._thread.start()
        assert self._ready.wait(20), "the emulated cluster does not start"
        self._write_kubeconfig()

    @property
    def volume(self) -> Path:
        """The folder that stands for the claim."""
        return self.kubelet.volume

    def close(self) -> None:
        """End every container and the server."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def call(self, function: Callable[[], Result]) -> Result:
        """Call something in the cluster's own thread."""

        async def inside() -> Result:
            return function()

        return asyncio.run_coroutine_threadsafe(inside(), self._loop).result(30)

    def objects(self, *kinds: str) -> list[str]:
        """`Kind name` of what there is."""
        wanted = kinds or ("Job", "Pod", "Service", "ConfigMap")
        return sorted(f"{key[0]} {key[2]}" for key in self.call(lambda: list(self.store.objects)) if key[0] in wanted)

    def pods(self) -> list[Body]:
        """All pods."""
        return self.call(lambda: self.store.select("Pod", NAMESPACE))

    def add(self, kind: str, name: str, **parts: object) -> None:
        """Put an object there."""
        body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **parts}
        self.call(lambda: self.store.create(body))

    def compact(self) -> None:
        """Let every watch expire."""
        self.call(self.store.compact)

    def drop_connections(self) -> None:
        """Break every stream."""
        self.call(self.server.drop_connections)

    def processes(self) -> int:
        """How many containers run."""
        return self.call(lambda: sum(bool(c.pid) and not c.ended for c in self.kubelet.containers.values()))

    def kill_container(self, index: int) -> None:
        """SIGKILL to process 1 of the newest running pod with an index, as the kernel does when memory is short."""
        self.call(lambda: self.kubelet.containers[self._uid(index)].signal(signal.SIGKILL))

    def evict(self, index: int) -> None:
        """The node is short of something: its pod ends at once, without a word of the container's own."""

        def change(body: Body) -> None:
            body["status"] |= {
                "phase": "Failed",
                "reason": "Evicted",
                "message": "The node was low on memory.",
            }
            set_condition(body, condition("DisruptionTarget", True, "TerminationByKubelet"))

        def inside() -> None:
            uid = self._uid(index)
            self.kubelet.tasks[uid].cancel()
            self.kubelet.containers[uid].signal(signal.SIGKILL)
            self.kubelet.containers[uid].ended = True
            pod = next(p for p in self.store.select("Pod", NAMESPACE) if p["metadata"]["uid"] == uid)
            self.store.change("Pod", NAMESPACE, pod["metadata"]["name"], change)
            self.kubelet.tasks[uid] = self._loop.create_task(self.kubelet._delete_when_asked(pod))

        self.call(inside)

    def silence(self, index: int) -> None:
        """The node of a pod stops: no process runs on, no request is answered, nothing is said."""

        def inside() -> None:
            uid = self._uid(index)
            self.faults.silent_nodes.add(f"node-{index}")
            self.kubelet.containers[uid].freeze()

        self.call(inside)

    def notice_silence(self, index: int) -> None:
        """What the node controller does after its grace: the pod is not ready, then it is to be deleted."""

        def change(body: Body) -> None:
            set_condition(body, condition("Ready", False))

        def inside() -> None:
            name = self._pod(index)["metadata"]["name"]
            self.store.change("Pod", NAMESPACE, name, change)

        self.call(inside)

    def delete_pod(self, index: int) -> None:
        """Somebody deletes a pod."""
        self.call(lambda: self.controller.delete("Pod", self._pod(index)["metadata"]["name"], "Background", None))

    def _pod(self, index: int) -> Body:
        found = [p for p in self.store.select("Pod", NAMESPACE) if p["metadata"]["labels"].get(INDEX) == str(index)]
        return max(found, key=lambda pod: int(pod["metadata"]["resourceVersion"]))

    def _uid(self, index: int) -> str:
        return str(self._pod(index)["metadata"]["uid"])

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()

    async def _start(self) -> None:
        self.store = Store()
        self.kubelet = Kubelet(self.store, self.faults, self.folder, nodes=2)
        self.controller = Controller(self.store, self.faults, NAMESPACE)
        self.server = Server(self.store, self.faults, self.kubelet, self.controller, NAMESPACE)
        self._runner = web.AppRunner(self.server.application(), access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._control = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while True:
            self.controller.step()
            self.kubelet.notice()
            await self.store.changed(0.2)

    async def _close(self) -> None:
        self._control.cancel()
        self.kubelet.close()
        await self._runner.cleanup()

    def _write_kubeconfig(self) -> None:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "emulated", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "test", "user": {"token": "none"}}],
            "contexts": [{"name": "emulated", "context": {"cluster": "emulated", "user": "test"}}],
            "current-context": "emulated",
        }
        self.kubeconfig.write_text(json.dumps(config))
