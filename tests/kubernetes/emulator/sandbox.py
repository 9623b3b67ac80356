"""`python sandbox.py SPEC.json`: an EMULATED container. Runs a command as process 1 of namespaces of its own.

What is real: the command and its environment, the mounts of the pod (runs, job, /dev/shm), the host name, names of
other pods in /etc/hosts, process 1's treatment of signals, one network for all pods of the cluster. What is not: the
image (the root is this machine's, with its Python), the user, and limits of CPU and memory. Needs root.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

NEW_MOUNTS, NEW_HOSTNAME, NEW_IPC, NEW_PIDS, NEW_NET = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
BIND, RECURSIVE, PRIVATE, NO_SUID = 4096, 16384, 1 << 18, 2
LIBC = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    words = [word.encode() or None for word in (source, target, kind)]
    check(LIBC.mount(*words, flags, options.encode() or None), f"mount {source} at {target}")


def build_root(root: Path, mounts: dict[str, str], hosts: str) -> None:
    """A root that holds this machine's folders and the pod's mounts."""
    mount("none", "/", flags=RECURSIVE | PRIVATE)
    mount("tmpfs", str(root), "tmpfs")
    for entry in Path("/").iterdir():
        inside = root / entry.name
        if entry.is_symlink():
            inside.symlink_to(os.readlink(entry))
        elif entry.is_dir() and entry.name not in ("proc", "slipway"):
            inside.mkdir()
            mount(str(entry), str(inside), flags=BIND | RECURSIVE)
    mount("none", str(root), flags=RECURSIVE | PRIVATE)
    (root / "proc").mkdir()
    mount("proc", str(root / "proc"), "proc")
    mount(hosts, str(root / "etc/hosts"), flags=BIND)
    for target, source in mounts.items():
        inside = root / target.lstrip("/")
        inside.mkdir(parents=True, exist_ok=True)
        if source == "tmpfs":
            mount("tmpfs", str(inside), "tmpfs")
        else:
            mount(source, str(inside), flags=BIND)


def main(path: str) -> int:
    spec = json.loads(Path(path).read_text(encoding="utf-8"))
    with open(spec["network"], "rb") as network:
        check(LIBC.setns(network.fileno(), NEW_NET), "enter the network")
    check(LIBC.unshare(NEW_MOUNTS | NEW_HOSTNAME | NEW_IPC | NEW_PIDS), "unshare")
    child = os.fork()
    if child == 0:
        name = spec["hostname"].encode()
        check(LIBC.sethostname(name, len(name)), "sethostname")
        build_root(Path(spec["root"]), spec["mounts"], spec["hosts"])
        os.chroot(spec["root"])
        os.chdir(spec["working_directory"])
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(spec["command"][0], spec["command"], spec["environment"])
    Path(spec["pid_file"]).write_text(str(child))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) % 256 if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
