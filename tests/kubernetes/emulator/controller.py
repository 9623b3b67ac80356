"""The controllers of the EMULATED cluster: Indexed Jobs without a second try, and the garbage of deleted owners."""

from __future__ import annotations

import copy
import secrets

from .faults import Faults
from .kubelet import INDEX
from .store import Body, Refused, Store, condition, set_condition, timestamp


class Controller:
    """Looks at everything again after each change."""

    def __init__(self, store: Store, faults: Faults, namespace: str) -> None:
        self.store, self.faults, self.namespace = store, faults, namespace
        self._seen: dict[str, dict[str, int]] = {}  # Job's uid -> pod -> index: of pods that are or were there

    def step(self) -> None:
        """One look."""
        for job in self.store.select("Job", self.namespace):
            self._job(job)
        self._garbage()

    def delete(self, kind: str, name: str, propagation: str, grace: int | None) -> Body:
        """Somebody deletes an object."""
        body = self.store.get(kind, self.namespace, name)
        if kind == "Pod":
            return self._delete_pod(body, grace)
        if propagation == "Foreground":
            return self.store.change(kind, self.namespace, name, _mark) or body
        self.store.remove(kind, self.namespace, name)
        return body

    def _delete_pod(self, pod: Body, grace: int | None) -> Body:
        name = pod["metadata"]["name"]
        if grace == 0:
            self.store.remove("Pod", self.namespace, name)
            return pod
        seconds = grace if grace is not None else pod["spec"].get("terminationGracePeriodSeconds", 30)

        def change(body: Body) -> None:
            _mark(body)
            there = body["metadata"].get("deletionGracePeriodSeconds", seconds)
            body["metadata"]["deletionGracePeriodSeconds"] = min(there, seconds)

        meta = pod["metadata"]
        if "deletionTimestamp" in meta and meta.get("deletionGracePeriodSeconds", 0) <= seconds:
            return pod
        return self.store.change("Pod", self.namespace, name, change) or pod

    def _job(self, job: Body) -> None:
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        pods = self._pods_of(uid)
        seen = self._seen.setdefault(uid, {})
        seen.update({pod["metadata"]["name"]: int(pod["metadata"]["labels"][INDEX]) for pod in pods})
        if "deletionTimestamp" in job["metadata"] or _finished(job):
            return
        if job["spec"].get("suspend"):
            for pod in pods:
                self._delete_pod(pod, None)
            return
        there = {pod["metadata"]["name"] for pod in pods}
        done = {int(pod["metadata"]["labels"][INDEX]) for pod in pods if pod["status"]["phase"] == "Succeeded"}
        failed = [p for p in pods if p["status"]["phase"] == "Failed" or self._leaving(p)]
        if failed or seen.keys() - there:
            self._finish(name, "Failed", "BackoffLimitExceeded")
            for pod in pods:
                if pod["status"]["phase"] in ("Pending", "Running"):
                    self._delete_pod(pod, None)
        elif len(done) == job["spec"]["completions"]:
            self._finish(name, "Complete", "CompletionsReached")
        else:
            for index in range(job["spec"]["completions"]):
                if index not in seen.values():
                    self._create_pod(job, index)

    def _leaving(self, pod: Body) -> bool:
        return "deletionTimestamp" in pod["metadata"] and pod["status"]["phase"] != "Succeeded"

    def _create_pod(self, job: Body, index: int) -> None:
        name = job["metadata"]["name"]
        if self.faults.refuse_pods is not None:
            self._event(name, f'Error creating: pods "{name}-{index}-x" is forbidden: {self.faults.refuse_pods}')
            return
        template = copy.deepcopy(job["spec"]["template"])
        meta = template["metadata"]
        meta |= {"name": f"{name}-{index}-{secrets.token_hex(3)[:5]}", "namespace": self.namespace}
        meta["labels"] |= {INDEX: str(index), "job-name": name}
        meta["annotations"] |= {INDEX: str(index)}
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
        meta["ownerReferences"] = [{**owner, "controller": True, "blockOwnerDeletion": True}]
        spec = {**template["spec"], "hostname": f"{name}-{index}"}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": {"phase": "Pending"}}
        self.store.create(body)
        self._seen[job["metadata"]["uid"]][meta["name"]] = index

    def _event(self, job: str, message: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{job}.{secrets.token_hex(4)}", "namespace": self.namespace},
            "involvedObject": {"kind": "Job", "name": job},
            "reason": "FailedCreate",
            "message": message,
            "type": "Warning",
        }
        known = self.store.select("Event", self.namespace, lambda e: e["message"] == message)
        if not known:
            self.store.create(body)

    def _finish(self, name: str, kind: str, reason: str) -> None:
        self.store.change("Job", self.namespace, name, lambda body: set_condition(body, condition(kind, True, reason)))

    def _pods_of(self, uid: str) -> list[Body]:
        return self.store.select("Pod", self.namespace, lambda pod: uid in _owners(pod))

    def _garbage(self) -> None:
        """Dependents of owners that are being deleted, or have gone."""
        uids = {item["metadata"]["uid"] for item in self.store.objects.values()}
        leaving = {i["metadata"]["uid"] for i in self.store.objects.values() if "deletionTimestamp" in i["metadata"]}
        for body in list(self.store.objects.values()):
            owners = _owners(body)
            if owners and (owners & leaving or not owners & uids):
                if body["kind"] == "Pod":
                    if "deletionTimestamp" not in body["metadata"]:
                        self._delete_pod(body, None)
                else:
                    self.store.remove(body["kind"], self.namespace, body["metadata"]["name"])
        for body in list(self.store.objects.values()):
            leaves = body["kind"] == "Job" and "deletionTimestamp" in body["metadata"]
            if leaves and not self._pods_of(body["metadata"]["uid"]):
                self.store.remove("Job", self.namespace, body["metadata"]["name"])


def admit(faults: Faults, body: Body) -> None:
    """What an admission policy says to a new object."""
    said = faults.refuse_objects.get(body["kind"])
    if said is not None:
        raise Refused(403, "Forbidden", f'admission webhook "policy.example.org" denied the request: {said}')


def _owners(body: Body) -> set[str]:
    return {owner["uid"] for owner in body["metadata"].get("ownerReferences") or ()}


def _mark(body: Body) -> None:
    body["metadata"].setdefault("deletionTimestamp", timestamp())


def _finished(job: Body) -> bool:
    return any(item["type"] in ("Complete", "Failed") for item in job.get("status", {}).get("conditions", []))
