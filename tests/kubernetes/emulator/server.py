"""An EMULATED Kubernetes API server on loopback: the few resources that the backend uses, with their hard sides.

Real: HTTP, JSON, resource versions, 409 for a stale update, watches with bookmarks and 410 after compaction, logs that
follow, exec over a websocket. Not real: authentication, validation, patches, anything not asked for here. It exists
because no control plane can be installed on a test machine; `SLIPWAY_KUBECONFIG` runs the same tests on a real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from typing import Any

from aiohttp import WSMsgType, web

from .controller import Controller, admit
from .faults import Faults
from .kubelet import Container, Kubelet
from .store import Body, Refused, Store

PLURALS = {
    "jobs": "Job",
    "pods": "Pod",
    "services": "Service",
    "configmaps": "ConfigMap",
    "events": "Event",
    "secrets": "Secret",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "serviceaccounts": "ServiceAccount",
}
VERBS = {"POST": "create", "GET": "get", "PUT": "update", "DELETE": "delete"}
OBJECTS = "/{api:api/v1|apis/batch/v1}/namespaces/{namespace}/{plural}"


class Server:
    """Answers requests about the store."""

    def __init__(self, store: Store, faults: Faults, kubelet: Kubelet, controller: Controller, namespace: str) -> None:
        self.store, self.faults, self.kubelet, self.controller = store, faults, kubelet, controller
        self.namespace = namespace
        self.requests: list[str] = []
        self.open: set[web.StreamResponse] = set()

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[self._answer], client_max_size=64 << 20)
        app.router.add_get("/version/", self._version)
        app.router.add_get("/version", self._version)
        app.router.add_get("/api/v1/namespaces/{name}", self._namespace)
        app.router.add_post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self._review)
        app.router.add_get(OBJECTS, self._list)
        app.router.add_post(OBJECTS, self._create)
        app.router.add_get(OBJECTS + "/{name}", self._get)
        app.router.add_put(OBJECTS + "/{name}", self._replace)
        app.router.add_delete(OBJECTS + "/{name}", self._delete)
        app.router.add_get(OBJECTS + "/{name}/log", self._log)
        app.router.add_get(OBJECTS + "/{name}/exec", self._exec)
        return app

    def drop_connections(self) -> None:
        """Break every open stream in the middle."""
        for response in list(self.open):
            transport = getattr(response, "drop", None)
            if transport is not None:
                transport.abort()

    @web.middleware
    async def _answer(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        try:
            self._refuse(request)
            return await handler(request)
        except Refused as refused:
            return _status(refused)

    def _refuse(self, request: web.Request) -> None:
        if self.faults.unauthorized:
            raise Refused(401, "Unauthorized", "Unauthorized")
        if self.faults.busy:
            self.faults.busy -= 1
            raise Refused(503, "ServiceUnavailable", "the server is currently unable to handle the request")
        plural = request.match_info.get("plural")
        verb = VERBS[request.method]
        if verb == "get" and "name" not in request.match_info:
            verb = "list"
        if plural and f"{verb} {plural}" in self.faults.forbidden:
            raise Refused(403, "Forbidden", f'{plural} is forbidden: User "test" cannot {verb} resource "{plural}"')

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"major": "1", "minor": "34", "gitVersion": "v1.34.0-emulated"})

    async def _namespace(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name != self.namespace:
            raise Refused(404, "NotFound", f'namespaces "{name}" not found')
        return web.json_response({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    async def _review(self, request: web.Request) -> web.Response:
        body = await request.json()
        asked = body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
        allowed = f"{asked['verb']} {resource}" not in self.faults.forbidden
        return web.json_response({**body, "status": {"allowed": allowed}}, status=201)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        kind = PLURALS[request.match_info["plural"]]
        if request.query.get("watch") in ("true", "True", "1"):
            return await self._watch(request, kind)
        found = self.store.select(kind, self.namespace, lambda item: _fits(item, request.query))
        data = {"kind": f"{kind}List", "metadata": {"resourceVersion": self.store.version}, "items": found}
        return web.json_response(data)

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        body["metadata"]["namespace"] = self.namespace
        admit(self.faults, body)
        if body["kind"] == "Pod":
            body["status"] = {"phase": "Pending"}
        made = self.store.create(body)
        if self.faults.lost_answers:
            self.faults.lost_answers -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(made, status=201)

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(self.store.get(*self._named(request)))

    async def _replace(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.faults.conflicts:
            self.faults.conflicts -= 1

            def touch(item: Body) -> None:
                item["metadata"].setdefault("annotations", {})["somebody/was-here"] = "yes"

            self.store.change(*self._named(request), touch)
        return web.json_response(self.store.replace(body))

    async def _delete(self, request: web.Request) -> web.Response:
        kind, _, name = self._named(request)
        options = await request.json() if request.can_read_body else {}
        grace = options.get("gracePeriodSeconds")
        return web.json_response(
            self.controller.delete(kind, name, options.get("propagationPolicy", "Background"), grace)
        )

    async def _watch(self, request: web.Request, kind: str) -> web.StreamResponse:
        version = int(request.query["resourceVersion"])
        response = await self._stream(request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + int(request.query.get("timeoutSeconds", "300"))
        try:
            while loop.time() < deadline:
                try:
                    changes = list(self.store.since(version, kind, self.namespace))
                except Refused as refused:
                    await _send(response, {"type": "ERROR", "object": _status_body(refused)})
                    break
                for number, word, body in changes:
                    version = number
                    if _fits(body, request.query):
                        await _send(response, {"type": word, "object": body})
                await self.store.changed(min(2.0, deadline - loop.time()))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open.discard(response)
        return response

    async def _log(self, request: web.Request) -> web.StreamResponse:
        pod = self.store.get(*self._named(request))
        container = self.kubelet.containers.get(pod["metadata"]["uid"])
        silent = self.kubelet.node_of(pod) in self.faults.silent_nodes
        if silent:
            raise Refused(500, "InternalError", f"Get https://{self.kubelet.node_of(pod)}:10250/: no route to host")
        if container is None or not container.pid:
            raise Refused(400, "BadRequest", "container is waiting to start: ContainerCreating")
        if "tailLines" in request.query:
            return web.Response(body=b"".join(container.log.read_bytes().splitlines(True)[-1:]))
        since = request.query.get("sinceSeconds")
        offset = container.offset_of(float(since)) if since else 0
        response = await self._stream(request)
        try:
            await self._follow(response, pod, container, offset)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open.discard(response)
        return response

    async def _follow(self, response: web.StreamResponse, pod: Body, container: Container, offset: int) -> None:
        while True:
            ended = container.ended
            if self.kubelet.node_of(pod) not in self.faults.silent_nodes:
                with container.log.open("rb") as log:
                    log.seek(offset)
                    data = log.read(1 << 16)
                if data:
                    await response.write(data)
                    offset += len(data)
                elif ended:
                    await response.write_eof()
                    return
            if not (ended and data):
                await asyncio.sleep(0.05)

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        pod = self.store.get(*self._named(request))
        container = self.kubelet.containers[pod["metadata"]["uid"]]
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",), max_msg_size=64 << 20)
        await socket.prepare(request)
        spec = json.loads((container.folder / "spec.json").read_text())
        words = ["nsenter", "--target", str(container.pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--root"]
        process = await asyncio.create_subprocess_exec(
            *words,
            *("env", "--chdir=/slipway"),
            *request.query.getall("command"),
            env=spec["environment"],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdin and process.stdout and process.stderr
        outputs = [_channel(socket, 1, process.stdout), _channel(socket, 2, process.stderr)]
        tasks = [asyncio.create_task(output) for output in outputs]
        feeding = asyncio.create_task(_feed(socket, process.stdin))
        await asyncio.gather(*tasks)
        code = await process.wait()
        body: Body = {"metadata": {}, "status": "Success"}
        if code:
            causes = [{"reason": "ExitCode", "message": str(code)}]
            body = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
        await socket.send_bytes(b"\x03" + json.dumps(body).encode())
        feeding.cancel()
        await socket.close()
        return socket

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        response.drop = request.transport  # type: ignore[attr-defined]
        self.open.add(response)
        return response

    def _named(self, request: web.Request) -> tuple[str, str, str]:
        namespace = request.match_info["namespace"]
        return PLURALS[request.match_info["plural"]], namespace, request.match_info["name"]


async def _send(response: web.StreamResponse, data: Body) -> None:
    await response.write(json.dumps(data).encode() + b"\n")


async def _channel(socket: web.WebSocketResponse, number: int, stream: asyncio.StreamReader) -> None:
    while data := await stream.read(1 << 15):
        await socket.send_bytes(struct.pack("B", number) + data)


async def _feed(socket: web.WebSocketResponse, stdin: asyncio.StreamWriter) -> None:
    """Version 4 of the protocol can't close stdin: a command that waits for its end waits for ever, as in clusters."""
    with contextlib.suppress(ConnectionError):
        async for message in socket:
            if message.type is WSMsgType.BINARY and message.data[:1] == b"\0":
                stdin.write(message.data[1:])
                await stdin.drain()


def _fits(item: Body, query: Any) -> bool:
    labels = item["metadata"].get("labels") or {}
    for word in filter(None, query.get("labelSelector", "").split(",")):
        key, _, value = word.partition("=")
        if labels.get(key) != value:
            return False
    for word in filter(None, query.get("fieldSelector", "").split(",")):
        key, _, value = word.partition("=")
        found: Any = item
        for part in key.split("."):
            found = found.get(part, {})
        if found != value:
            return False
    return True


def _status(refused: Refused) -> web.Response:
    return web.json_response(_status_body(refused), status=refused.code)


def _status_body(refused: Refused) -> Body:
    words = {"message": refused.message, "reason": refused.reason, "code": refused.code}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", **words}
