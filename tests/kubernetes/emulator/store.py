"""The objects of the EMULATED cluster, with resource versions and a history that watches read and compaction cuts."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

Body = dict[str, Any]
Key = tuple[str, str, str]  # kind, namespace, name


class Refused(Exception):
    """An answer that isn't yes."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


class Store:
    """All objects. Used from one event loop only."""

    def __init__(self) -> None:
        self.objects: dict[Key, Body] = {}
        self.history: list[tuple[int, str, Body]] = []
        self.forgotten = 0
        self._version = 100
        self._changed: asyncio.Event = asyncio.Event()

    @property
    def version(self) -> str:
        """The newest."""
        return str(self._version)

    def get(self, kind: str, namespace: str, name: str) -> Body:
        """A copy of an object."""
        if (kind, namespace, name) not in self.objects:
            raise Refused(404, "NotFound", f'{kind.lower()}s "{name}" not found')
        return copy.deepcopy(self.objects[kind, namespace, name])

    def select(self, kind: str, namespace: str, fits: Callable[[Body], bool] = lambda _: True) -> list[Body]:
        """Copies of objects."""
        found = [item for key, item in self.objects.items() if key[:2] == (kind, namespace) and fits(item)]
        return copy.deepcopy(found)

    def create(self, body: Body) -> Body:
        """Add an object."""
        key = _key(body)
        if key in self.objects:
            raise Refused(409, "AlreadyExists", f'{key[0].lower()}s "{key[2]}" already exists')
        body = copy.deepcopy(body)
        body["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp(), "generation": 1}
        return self._note("ADDED", body)

    def replace(self, body: Body) -> Body:
        """Write an object back, where it is the newest version that was changed."""
        key, there = _key(body), self.get(*_key(body))
        given = body["metadata"].get("resourceVersion")
        if given and given != there["metadata"]["resourceVersion"]:
            raise Refused(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {key[0].lower()}s "{key[2]}": the object has been modified; please '
                "apply your changes to the latest version and try again",
            )
        return self._note("MODIFIED", copy.deepcopy(body))

    def change(self, kind: str, namespace: str, name: str, change: Callable[[Body], None]) -> Body | None:
        """Change an object from inside the cluster; None where it has gone."""
        if (kind, namespace, name) not in self.objects:
            return None
        body = self.get(kind, namespace, name)
        change(body)
        return self._note("MODIFIED", body)

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Forget an object."""
        if (kind, namespace, name) in self.objects:
            self._note("DELETED", self.objects.pop((kind, namespace, name)))

    def since(self, version: int, kind: str, namespace: str) -> Iterator[tuple[int, str, Body]]:
        """What has changed after a version."""
        if version < self.forgotten:
            raise Refused(410, "Expired", f"too old resource version: {version} ({self.forgotten})")
        for number, word, body in list(self.history):
            if number > version and body["kind"] == kind and body["metadata"]["namespace"] == namespace:
                yield number, word, body

    def compact(self) -> None:
        """Forget the history, as etcd does after five minutes."""
        self.forgotten = self._version + 1
        self._version += 1
        self.history.clear()
        self.wake()

    async def changed(self, seconds: float) -> None:
        """Wait for any change, at most so long."""
        event = self._changed
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return

    def wake(self) -> None:
        """Let everybody look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _note(self, word: str, body: Body) -> Body:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        if word != "DELETED":
            self.objects[_key(body)] = body
        self.history.append((self._version, word, copy.deepcopy(body)))
        self.wake()
        return copy.deepcopy(body)


def _key(body: Body) -> Key:
    return body["kind"], body["metadata"]["namespace"], body["metadata"]["name"]


def timestamp() -> str:
    """Now, as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, status: bool, reason: str = "", message: str = "") -> Body:
    """One condition of a status."""
    words = {"reason": reason, "message": message, "lastTransitionTime": timestamp()}
    return {"type": kind, "status": str(status), **{key: word for key, word in words.items() if word}}


def set_condition(body: Body, new: Body) -> None:
    """Add or replace a condition."""
    conditions = body.setdefault("status", {}).setdefault("conditions", [])
    conditions[:] = [item for item in conditions if item["type"] != new["type"]] + [new]
