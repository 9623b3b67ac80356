"""The ssh command line of a host: never a question, never an unknown key, one connection for many commands."""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
from pathlib import Path

from kit.errors import RunFailure, SlipwayError, UserError
from kit.target import Host, SshSettings, Target

ALIVE_SECONDS = 5
ALIVE_COUNT = 3
CONNECT_SECONDS = 10
PERSIST_SECONDS = 60
NOT_REACHED = 255  # ssh's own exit code: the remote command has not run, or the connection broke under it


def ssh_command(target: Target, host: Host, *words: str) -> list[str]:
    """The command line that runs `words` on a host.

    The words reach the program there as they are: no shell expands `~`, `*` or `$` in them. Without words the host
    starts a login shell that reads its standard input.
    """
    return ["ssh", *ssh_options(target, host), "--", destination(target, host), *([shlex.join(words)] if words else [])]


def ssh_options(target: Target, host: Host) -> list[str]:
    """The options of `ssh` (and of whatever calls it) for a host, without its name."""
    settings = target.ssh or SshSettings()
    options = [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        f"ConnectTimeout={CONNECT_SECONDS}",
        f"ServerAliveInterval={ALIVE_SECONDS}",
        f"ServerAliveCountMax={ALIVE_COUNT}",
        "ControlMaster=auto",
        f"ControlPath={_sockets() / _key_of(settings)}-%C",
        f"ControlPersist={PERSIST_SECONDS}",
        "LogLevel=ERROR",
    ]
    if settings.known_hosts:
        options += [f'UserKnownHostsFile="{_file(settings.known_hosts)}"', "GlobalKnownHostsFile=/dev/null"]
    if settings.identity:
        options += [f'IdentityFile="{_file(settings.identity)}"', "IdentitiesOnly=yes"]
    port = host.port or settings.port
    if port:
        options.append(f"Port={port}")
    return [word for option in options for word in ("-o", option)]


def destination(target: Target, host: Host) -> str:
    """The host as ssh is told it: `user@address`."""
    user = target.ssh.user if target.ssh else None
    return f"{user}@{host.reach}" if user else host.reach


def not_reached(target: Target, host: Host, printed: str) -> SlipwayError:
    """What to tell about a host that ssh did not get through to, from what ssh printed."""
    lines = [line.strip() for line in printed.splitlines() if line.strip() and not set(line.strip()) <= {"@"}]
    last = lines[-1] if lines else "the connection broke"
    known = target.ssh.known_hosts if target.ssh else None
    file = known or "~/.ssh/known_hosts"
    name = f"host {host.name} ({host.reach})"
    if "HAS CHANGED" in printed:
        return UserError(
            f"{name} shows another host key than {file} holds",
            expected="the key that it had: a changed one means another machine, or somebody in between",
            action=f"ask its owner; if it was installed anew: `ssh-keygen -f {file} -R {host.reach}`, then add its key",
        )
    if "Host key verification failed" in printed or "key is known" in printed:
        return UserError(
            f"{name} shows a host key that {file} does not hold",
            expected="hosts whose keys are known: an unknown one is never added silently",
            action=f"compare its fingerprint with its owner, then `ssh-keyscan {host.reach} >>{file}`",
        )
    if "Permission denied" in printed or "Too many authentication" in printed:
        return UserError(
            f"{name} refuses the login: {last}",
            expected="a user and a key that may log in without a question",
            action="mend `ssh.user` and `ssh.identity` in the target, or add the key to the host's authorized_keys",
        )
    if "Could not resolve" in printed:
        return UserError(
            f"{name} has no address: {last}",
            expected="a name or an IP address that this machine can look up",
            action="mend `address` of the host in the target",
        )
    return RunFailure(
        f"{name} is not reached: {last}",
        expected="an ssh connection",
        action=f"see that it is on; try `{shlex.join(ssh_command(target, host, 'true'))}`",
    )


def _file(path: str) -> Path:
    return Path(path).expanduser().absolute()


def _key_of(settings: SshSettings) -> str:
    """A name for connections that were opened under the same trust.

    ssh finds an open connection by user, host and port alone: one that was opened with another list of host keys, or
    with another identity, would be taken without a look at this one's.
    """
    parts = [str(settings.identity)]
    if settings.known_hosts:
        known = _file(settings.known_hosts)
        parts += [str(known), known.read_text(errors="replace") if known.is_file() else ""]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _sockets() -> Path:
    """The folder of connection sockets: this user's alone, and short (a socket's path holds about 100 characters)."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime, "slipway") if runtime and os.path.isdir(runtime) else Path(f"/tmp/slipway-ssh-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise UserError(
            f"{folder} is not a folder of yours alone",
            expected="a folder that only you may enter: it holds the sockets of open ssh connections",
            action=f"remove it, or `chmod 700 {folder}`",
        )
    return folder
