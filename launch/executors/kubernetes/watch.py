"""The pods of a job as the cluster reports them, kept up to date by a thread however a watch may end."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from kubernetes.client.exceptions import ApiException

from kit.errors import SlipwayError
from launch.executors.kubernetes.api import NETWORK, Cluster, Expired, first_line, message_of
from launch.executors.kubernetes.pods import PodView, view

WATCH_SECONDS = 60
LONGEST_PAUSE_SECONDS = 10.0
QUIET_SECONDS = 30.0
LOG = logging.getLogger(__name__)


class PodWatch:
    """Follows pods by label: lists, watches from there, lists again after 410, reconnects after anything else.

    A pod that has gone keeps its last view, marked as gone: how it ended may have been said just before.
    """

    def __init__(self, cluster: Cluster, selector: str) -> None:
        self._cluster, self._selector = cluster, selector
        self._pods: dict[str, PodView] = {}
        self._gone: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._failure: SlipwayError | None = None
        self._answered = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="pod-watch", daemon=True)

    def __enter__(self) -> PodWatch:
        self._relist()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def pods(self) -> dict[int, tuple[PodView, bool]]:
        """Index -> the newest pod, and whether it has gone.

        Raises:
            SlipwayError: The server refuses to list them. Credentials that expire may come back: the pods go on.
        """
        if self._failure is not None:
            raise self._failure
        with self._lock:
            found: dict[int, tuple[PodView, bool]] = {}
            for uid, pod in self._pods.items():
                if pod.index >= 0 and (pod.index not in found or uid not in self._gone):
                    found[pod.index] = (pod, uid in self._gone)
            return dict(sorted(found.items()))

    def _run(self) -> None:
        pause = 0.5
        version = self._version
        while not self._stop.is_set():
            try:
                for kind, item in self._cluster.watch("Pod", self._selector, version, WATCH_SECONDS):
                    version = item["metadata"]["resourceVersion"]
                    self._take(kind, item)
                    self._heard()
                    pause = 0.5
                    if self._stop.is_set():
                        return
                self._heard()
                continue  # the server's own time limit
            except Expired:
                pass
            except ApiException as error:
                if error.status == 403:
                    self._failure = self._cluster.explain(error, "watch", "pods")
                    return
                self._complain(message_of(error))
            except NETWORK as error:
                self._complain(first_line(error))
            except ValueError as error:  # half a line: the connection broke inside
                self._complain(first_line(error))
            if self._stop.wait(pause):
                return
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            try:
                self._relist()
                version = self._version
            except SlipwayError as error:
                if isinstance(error.__cause__, ApiException) and error.__cause__.status == 403:
                    self._failure = error
                    return
                self._complain(error.found)

    def _relist(self) -> None:
        items, self._version = self._cluster.list("Pod", self._selector)
        with self._lock:
            there = {item["metadata"]["uid"] for item in items}
            self._gone |= self._pods.keys() - there
        for item in items:
            self._take("ADDED", item)
        self._heard()

    def _take(self, kind: str, item: dict[str, Any]) -> None:
        if kind == "BOOKMARK":
            return
        pod = view(item)
        with self._lock:
            self._pods[pod.uid] = pod
            if kind == "DELETED":
                self._gone.add(pod.uid)

    def _heard(self) -> None:
        self._answered = time.monotonic()

    def _complain(self, why: str) -> None:
        """Say it where the silence lasts: the pods go on, and so do we as soon as the server answers."""
        silence = time.monotonic() - self._answered
        if silence > QUIET_SECONDS and not self._stop.is_set():
            LOG.warning("no answer from the cluster for %.0f s (%s); trying again, the pods go on", silence, why)
            self._answered = time.monotonic()
