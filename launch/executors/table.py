"""The backends: kind of target -> executor."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from kit.target import Target
from launch.executors.protocol import Executor

EXECUTORS = {
    "local": "launch.executors.local:LocalExecutor",
    "ssh": "launch.executors.ssh:SshExecutor",
    "kubernetes": "launch.executors.kubernetes.executor:KubernetesExecutor",
    "aws": "launch.executors.ssh:SshExecutor",
}


def executor_for(target: Target) -> Executor:
    """The executor of a target; imports only that backend."""
    module, name = EXECUTORS[target.kind].split(":")
    return cast(Executor, getattr(import_module(module), name)())
