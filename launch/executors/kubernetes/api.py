"""A namespace of a cluster: plain dictionaries in and out, retries where a server asks for them, errors in three parts.

Every call may meet a server that is slow, busy, restarting, or a step ahead of us. Reads and deletions are repeated,
creations look whether they had succeeded, conflicts are answered with the fresh object.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from kit.errors import RunFailure, SlipwayError, UserError
from kit.target import KubernetesSettings
from launch.executors.kubernetes.names import CONTAINER

Body = dict[str, Any]
CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
RETRY_SECONDS = 60.0
PROBE_SECONDS = 4.0
CONFLICTS = 8
BUSY = {0, 429, 500, 502, 503, 504}
# Kind -> the client's group and its word for it.
KINDS = {
    "Job": ("batch", "job"),
    "Pod": ("core", "pod"),
    "Service": ("core", "service"),
    "ConfigMap": ("core", "config_map"),
    "Event": ("core", "event"),
    "Secret": ("core", "secret"),
    "PersistentVolumeClaim": ("core", "persistent_volume_claim"),
    "ServiceAccount": ("core", "service_account"),
}
NETWORK = (urllib3.exceptions.HTTPError, OSError)


class Expired(Exception):
    """A watch asked for a version that the server has forgotten: list again."""


class Cluster:
    """One namespace, through one context of a kubeconfig."""

    def __init__(self, settings: KubernetesSettings) -> None:
        self.settings = settings
        self.namespace = settings.namespace
        self.client = connect(settings)
        self.host = str(self.client.configuration.host)
        self._groups: dict[str, Any] = {"core": client.CoreV1Api(self.client), "batch": client.BatchV1Api(self.client)}

    def version(self) -> tuple[int, int]:
        """The server's; asked once, without patience: the first question to a cluster.

        Raises:
            UserError: It isn't reachable, or refuses the credentials.
        """
        try:
            versions: Any = client.VersionApi(self.client)
            said = versions.get_code(_preload_content=False, _request_timeout=(CONNECT_SECONDS, CONNECT_SECONDS))
            data = json.loads(said.data)
            return int(data["major"]), int("".join(c for c in data["minor"] if c.isdigit()))
        except ApiException as error:
            raise self.explain(error, "get", "version") from error
        except (*NETWORK, ConfigException) as error:
            raise UserError(
                f"no answer from the cluster at {self.host}: {first_line(error)}",
                expected="an API server that this machine reaches",
                action="try `kubectl cluster-info`; mend the address in the kubeconfig, the VPN, or start the cluster",
            ) from error

    def get(self, kind: str, name: str) -> Body | None:
        """An object; None where there is none."""
        try:
            return self._ask("get", kind, lambda: self._call("read", kind)(name, self.namespace, **self._plain()))
        except ApiException as error:
            if error.status == 404:
                return None
            raise self.explain(error, "get", f"{kind} {name}") from error

    def list(self, kind: str, selector: str = "", field_selector: str = "") -> tuple[list[Body], str]:
        """Objects by label, and the version of the list, from which a watch goes on."""
        words = {"label_selector": selector} if selector else {}
        words |= {"field_selector": field_selector} if field_selector else {}
        try:
            data = self._ask("list", kind, lambda: self._call("list", kind)(self.namespace, **words, **self._plain()))
        except ApiException as error:
            raise self.explain(error, "list", f"{kind}s") from error
        return data["items"], data["metadata"]["resourceVersion"]

    def create(self, body: Body) -> Body:
        """Create an object. After an answer that got lost, the object that is there already is taken for ours."""
        kind, name = body["kind"], body["metadata"]["name"]
        tries = 0

        def attempt() -> Any:
            nonlocal tries
            tries += 1
            return self._call("create", kind)(self.namespace, body, **self._plain())

        try:
            return self._ask("create", kind, attempt)
        except ApiException as error:
            there = self.get(kind, name) if error.status == 409 and tries > 1 else None
            if there is not None:
                return there
            raise self.explain(error, "create", f"{kind} {name}") from error

    def change(self, kind: str, name: str, change: Callable[[Body], None]) -> Body | None:
        """Read an object, change it, write it back; from the start again where somebody else was faster.

        Returns:
            The object as written; None where it is gone.
        """
        plain = self._plain()
        for _ in range(CONFLICTS):
            body = self.get(kind, name)
            if body is None:
                return None
            change(body)
            try:
                return self._ask(
                    "update", kind, partial(self._call("replace", kind), name, self.namespace, body, **plain)
                )
            except ApiException as error:
                if error.status == 404:
                    return None
                if error.status != 409:
                    raise self.explain(error, "update", f"{kind} {name}") from error
                time.sleep(0.1)
        raise RunFailure(
            f"{kind} {name} in namespace {self.namespace} changes faster than it can be written",
            expected="at most a few writers",
            action="look at `kubectl get -o yaml` for who else manages it (`managedFields`)",
        )

    def delete(self, kind: str, name: str, propagation: str = "Background", grace: int | None = None) -> bool:
        """Delete an object; False where there was none."""
        options: Body = {"propagationPolicy": propagation}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            self._ask(
                "delete", kind, lambda: self._call("delete", kind)(name, self.namespace, body=options, **self._plain())
            )
        except ApiException as error:
            if error.status == 404:
                return False
            raise self.explain(error, "delete", f"{kind} {name}") from error
        return True

    def watch(self, kind: str, selector: str, version: str, seconds: int) -> Iterator[tuple[str, Body]]:
        """Changes since a version, for at most so many seconds; bookmarks too.

        Raises:
            Expired: The version is too old.
            ApiException, OSError, urllib3's: The connection didn't hold.
        """
        try:
            response = self._call("list", kind)(
                self.namespace,
                label_selector=selector,
                resource_version=version,
                watch=True,
                allow_watch_bookmarks=True,
                timeout_seconds=seconds,
                _preload_content=False,
                _request_timeout=(CONNECT_SECONDS, seconds + 15),
            )
        except ApiException as error:
            raise (Expired() if error.status == 410 else error) from error
        try:
            for line in lines_of(response):
                change = json.loads(line)
                if change["type"] == "ERROR":
                    raise (
                        Expired()
                        if change["object"].get("code") == 410
                        else ApiException(
                            status=change["object"].get("code", 0), reason=change["object"].get("message")
                        )
                    )
                yield change["type"], change["object"]
        finally:
            response.close()

    def follow_log(self, pod: str, since_seconds: int | None, silence_seconds: float) -> Any:
        """A pod's log as a response to read bytes from, until its container ends or the connection breaks."""
        words = {"since_seconds": since_seconds} if since_seconds else {}
        return self._groups["core"].read_namespaced_pod_log(
            pod,
            self.namespace,
            container=CONTAINER,
            follow=True,
            **words,
            _preload_content=False,
            _request_timeout=(CONNECT_SECONDS, silence_seconds),
        )

    def node_answers(self, pod: str) -> bool | None:
        """Whether the node of a pod still answers for it; None where the cluster itself doesn't answer."""
        try:
            self._groups["core"].read_namespaced_pod(
                pod, self.namespace, _preload_content=False, _request_timeout=(PROBE_SECONDS, PROBE_SECONDS)
            )
        except (ApiException, *NETWORK):
            return None
        try:
            self._groups["core"].read_namespaced_pod_log(
                pod,
                self.namespace,
                container=CONTAINER,
                tail_lines=1,
                _preload_content=False,
                _request_timeout=(PROBE_SECONDS, PROBE_SECONDS),
            )
            return True
        except (ApiException, *NETWORK):
            return False

    def may(self, verb: str, resource: str, group: str = "", subresource: str = "") -> bool | None:
        """Whether these credentials may do something in the namespace; None where the server doesn't say."""
        resources = {"namespace": self.namespace, "verb": verb, "resource": resource, "group": group}
        if subresource:
            resources["subresource"] = subresource
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": resources},
        }
        authorization: Any = client.AuthorizationV1Api(self.client)
        review = authorization.create_self_subject_access_review
        try:
            return bool(self._ask("create", "review", lambda: review(body, **self._plain()))["status"]["allowed"])
        except ApiException:
            return None

    def namespace_is_there(self) -> bool | None:
        """Whether the namespace is; None where these credentials may not see namespaces."""
        try:
            core = self._groups["core"]
            self._ask("get", "namespace", lambda: core.read_namespace(self.namespace, **self._plain()))
            return True
        except ApiException as error:
            if error.status == 404:
                return False
            if error.status == 403:
                return None
            raise self.explain(error, "get", f"namespace {self.namespace}") from error

    def explain(self, error: ApiException, verb: str, what: str) -> SlipwayError:
        """An answer of the server that isn't yes, as an error in three parts."""
        said = message_of(error)
        where = f"{what} in namespace {self.namespace} of {self.host}"
        if error.status == 401:
            return UserError(
                f"the cluster at {self.host} refuses the credentials: {said}",
                expected="credentials that are valid now",
                action="log in again (your provider's command, or a new token), and try `kubectl auth whoami`",
            )
        if error.status == 403 and "exceeded quota" not in said:
            return UserError(
                f"no permission to {verb} {where}: {said}",
                expected="the role that docs/kubernetes.md lists",
                action=f"ask the namespace's owner for it; `kubectl auth can-i --list -n {self.namespace}` shows yours",
            )
        kind = UserError if error.status in (400, 403, 404, 422) else RunFailure
        return kind(
            f"the cluster did not {verb} {where}: {said}",
            expected="an API server that takes it",
            action="mend what the message names (for example the target's section kubernetes), then try again",
        )

    def _call(self, verb: str, kind: str) -> Any:
        group, word = KINDS[kind]
        return getattr(self._groups[group], f"{verb}_namespaced_{word}")

    def _plain(self) -> dict[str, Any]:
        return {"_preload_content": False, "_request_timeout": (CONNECT_SECONDS, READ_SECONDS)}

    def _ask(self, verb: str, what: str, call: Callable[[], Any]) -> Body:
        """The answer to a call, asked again for a while where the server is busy or away."""
        deadline, pause = time.monotonic() + RETRY_SECONDS, 0.2
        while True:
            try:
                return dict(json.loads(call().data))
            except ApiException as error:
                if error.status not in BUSY or time.monotonic() + pause > deadline:
                    raise
            except NETWORK as error:
                if time.monotonic() + pause > deadline:
                    raise RunFailure(
                        f"no answer from the cluster at {self.host} to {verb} {what}: {first_line(error)}",
                        expected=f"an answer within {RETRY_SECONDS:.0f} s",
                        action="see that this machine reaches it (`kubectl cluster-info`); the pods go on meanwhile",
                    ) from error
            time.sleep(pause)
            pause = min(pause * 2, 5.0)


def connect(settings: KubernetesSettings) -> Any:
    """A client from a kubeconfig, or inside a pod from its service account.

    Raises:
        UserError: There is no kubeconfig, it is damaged, or it has no such context.
    """
    try:
        made = config.new_client_from_config(
            config_file=settings.kubeconfig, context=settings.context, persist_config=False
        )
    except ConfigException as error:
        if settings.kubeconfig is None and settings.context is None:
            try:
                inside = client.Configuration()
                config.load_incluster_config(client_configuration=inside)
                inside.retries = False
                return client.ApiClient(inside)
            except ConfigException:
                pass
        where = settings.kubeconfig or "KUBECONFIG, ~/.kube/config"
        wanted = f"the context {settings.context}" if settings.context else "a current context"
        raise UserError(
            f"no usable kubeconfig ({where}): {first_line(error)}",
            expected=f"a kubeconfig with {wanted}",
            action="see `kubectl config get-contexts`; the target names it: kubernetes.context, kubernetes.kubeconfig",
        ) from error
    made.configuration.retries = False
    made.rest_client.pool_manager.connection_pool_kw["retries"] = False
    return made


def lines_of(response: Any) -> Iterator[bytes]:
    """The whole lines of a response as they arrive, without their line feeds.

    A last piece without one is left out: its connection broke, and half a line would be taken for a whole one.
    """
    rest = b""
    while True:
        # read1 gives what is there; stream() would wait for a full buffer where the server doesn't send chunks.
        piece = response.read1()
        if not piece:
            break
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


def message_of(error: ApiException) -> str:
    """What the server said, in one line."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (TypeError, ValueError, KeyError):
        return first_line(error.reason or error.body or f"status {error.status}")


def first_line(error: object) -> str:
    """The first line of what an error says."""
    text = str(error).strip()
    return text.splitlines()[0][:400] if text else type(error).__name__
