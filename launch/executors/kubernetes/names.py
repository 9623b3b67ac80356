"""Names and labels of what a run has in a cluster. Pure."""

from __future__ import annotations

import hashlib
import re

from kit.errors import UserError

LABEL_LENGTH = 63  # of a DNS label: names of Services, host names of pods and values of labels
INDEX_LENGTH = 6  # "-" and up to five digits: an Indexed Job's pod has the host name <job>-<index>
RUN_LABEL = "slipway/run"
ROLE_LABEL = "slipway/role"
ATTEMPT_LABEL = "slipway/attempt"
RUN_ANNOTATION = "slipway/run-id"
CONTAINER = "slipway"
RUNS = "/slipway/runs"
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def slug(run_id: str, length: int = 44) -> str:
    """A run's id as a DNS label; a long one is cut, and a digest keeps it apart from others that begin alike."""
    plain = re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")
    if plain == run_id and len(plain) <= length:
        return plain
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:8]
    return f"{plain[: length - len(digest) - 1].strip('-')}-{digest}".strip("-")


def job_name(run_id: str, attempt: int) -> str:
    """The Job of one attempt; the ConfigMap and the Service have the same name. It starts with a letter, as names of
    Services have to.
    """
    name = f"slipway-{slug(run_id)}-a{attempt}"
    assert len(name) <= LABEL_LENGTH - INDEX_LENGTH and _DNS_LABEL.fullmatch(name), name
    return name


def labels(run_id: str, role: str, attempt: int | None = None) -> dict[str, str]:
    """What everything of a run carries."""
    found = {
        "app.kubernetes.io/name": "slipway",
        "app.kubernetes.io/managed-by": "slipway",
        RUN_LABEL: slug(run_id, LABEL_LENGTH),
        ROLE_LABEL: role,
    }
    return {**found, ATTEMPT_LABEL: str(attempt)} if attempt is not None else found


def selector(run_id: str, role: str = "ranks") -> str:
    """Chooses a run's objects by label."""
    return f"{RUN_LABEL}={slug(run_id, LABEL_LENGTH)},{ROLE_LABEL}={role}"


def host_name(index: int) -> str:
    """What logs, events and errors call the host with an index: the same in every attempt."""
    return f"pod-{index}"


def check_secret(variable: str, reference: str) -> tuple[str, str]:
    """`secret/key` in its two parts.

    Raises:
        UserError: It has another form.
    """
    name, slash, key = reference.partition("/")
    if not slash or not name or not key:
        raise UserError(
            f"kubernetes.secrets.{variable}: {reference!r}",
            expected="`secret/key`: the name of a Secret in the namespace, and one of its keys",
            action=f"write for example {variable}: {(name or 'wandb')}/api-key; the value itself stays in the cluster",
        )
    return name, key
