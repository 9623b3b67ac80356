"""A host: one set of namespaces with an sshd, a home and a temporary folder of its own."""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
import sys
import time
from pathlib import Path

import psutil
from lab.network import Network

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(pwd.getpwuid(os.getuid()).pw_dir)
SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile /run/sshd.pid
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin prohibit-password
UseDNS no
MaxStartups 100:30:200
MaxSessions 100
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""
# The first process of a host. It ends (and the kernel then ends everything else in its pid namespace) when the other
# end of its standard input has gone, so that no host outlives the process that made it.
INIT = """\
set -e
hostname {name}
i=0
for path in {kept}; do i=$((i + 1)); mkdir -p {folder}/kept/$i; mount --bind $path {folder}/kept/$i; done
for path in {hidden}; do mkdir -p {folder}/own$path $path; mount --bind {folder}/own$path $path; done
chmod 1777 /tmp
i=0
for path in {kept}; do i=$((i + 1)); mkdir -p $path; mount --bind {folder}/kept/$i $path; done
mount --bind {folder}/ssh /etc/ssh
mount --bind {hosts} /etc/hosts
mount --bind {folder}/nsswitch /etc/nsswitch.conf
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
mkdir -m 755 /run/sshd
cd {home}
/usr/sbin/sshd -E {folder}/sshd.log
echo up >{folder}/up
{wait}
"""
WAITS = {"attached": "while read -r word; do :; done", "detached": "while :; do sleep 3600 & wait $!; done"}


class Machine:
    """One host.

    Args:
        name: What it is called.
        number: The last number of its address.
        folder: For its files; neither under the home nor under /tmp, which it sees other ones of.
        network: What it is plugged into.
        hosts: A file for its /etc/hosts.
        core: The one processor core it may use; None: all.
        detached: Whether it outlives the process that boots it.
    """

    def __init__(
        self,
        name: str,
        number: int,
        folder: Path,
        network: Network,
        hosts: Path,
        core: int | None = None,
        detached: bool = False,
    ) -> None:
        self.name, self.number, self.folder, self.network = name, number, folder, network
        self.hosts, self.core, self.detached = hosts, core, detached
        self._started: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Its IP address."""
        return self.network.address(self.number)

    @property
    def home(self) -> Path:
        """Where its home lies on this machine."""
        return self.folder / "own" / HOME.relative_to("/")

    @property
    def public_key(self) -> str:
        """Its host key: type and key."""
        return " ".join((self.folder / "ssh" / "ssh_host_ed25519_key.pub").read_text().split()[:2])

    def install(self, login_key: str) -> None:
        """Make its files: host key, sshd's configuration, and who may log in."""
        own = self.folder / "ssh"
        own.mkdir(parents=True)
        new_key(own / "ssh_host_ed25519_key", self.name)
        (own / "sshd_config").write_text(SSHD_CONFIG)
        # Without DNS: a look-up of a name that nobody knows would cost seconds.
        (self.folder / "nsswitch").write_text("passwd: files\ngroup: files\nshadow: files\nhosts: files\n")
        (self.home / ".ssh").mkdir(parents=True, mode=0o700)
        (self.home / ".ssh" / "authorized_keys").write_text(login_key)

    def boot(self) -> None:
        """Switch it on; returns when its sshd listens."""
        self.network.plug(self.name, self.number)
        # The environment, its Python and the compiled operators stay visible; the checkout's code does not, so that a
        # missing copy of it shows.
        kept = [sys.prefix, sys.base_prefix, str(ROOT / ".cache" / "torch_extensions")]
        hidden = ["/tmp", str(HOME), str(ROOT)]
        script = INIT.format(
            name=self.name,
            kept=" ".join(shlex.quote(path) for path in kept if Path(path).is_dir()),
            hidden=" ".join(shlex.quote(path) for path in hidden),
            folder=self.folder,
            hosts=self.hosts,
            home=HOME,
            wait=WAITS["detached" if self.detached else "attached"],
        )
        (self.folder / "up").unlink(missing_ok=True)
        words = ["nsenter", f"--net=/var/run/netns/{self.network.namespace(self.name)}"]
        words += [] if self.core is None else ["taskset", "-c", str(self.core)]
        words += ["unshare", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        words += ["--propagation", "private", "bash", "-c", script]
        with open(self.folder / "init.log", "ab") as log:
            self._started = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL if self.detached else subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
                start_new_session=True,
            )
        (self.folder / "pid").write_text(str(self._started.pid))
        deadline = time.monotonic() + 30
        while not (self.folder / "up").exists():
            assert time.monotonic() < deadline and self._started.poll() is None, (self.folder / "init.log").read_text()
            time.sleep(0.05)

    def poweroff(self) -> None:
        """Switch it off as a power cut does: its cable falls silent first, then every process is gone."""
        self.network.unplug(self.name)
        init = self.init
        everything = [*self._inside(), init] if init else []
        if init:
            init.kill()
        psutil.wait_procs(everything, timeout=10)
        if self._started:
            if self._started.stdin:
                self._started.stdin.close()
            self._started.wait(10)
            self._started = None
        (self.folder / "pid").unlink(missing_ok=True)

    @property
    def init(self) -> psutil.Process | None:
        """Its first process as this machine sees it; None: it is off."""
        try:
            parent = psutil.Process(int((self.folder / "pid").read_text()))
            return parent.children()[0]
        except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
            return None

    def processes(self) -> list[psutil.Process]:
        """What runs on it beside its first process and sshd; none where it is off."""
        found = []
        for process in self._inside():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.name() not in ("sshd", "sleep"):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def run(self, command: str, check: bool = True) -> str:
        """Run a shell command on it without ssh; its output."""
        init = self.init
        assert init is not None, f"{self.name} is off"
        words = ["nsenter", "-t", str(init.pid), "-a", "env", f"HOME={HOME}", "sh", "-c", f"cd ~ && {command}"]
        result = subprocess.run(words, capture_output=True, text=True, check=False)
        assert not check or result.returncode == 0, f"{self.name}: {command}: {result.stderr}"
        return result.stdout

    def _inside(self) -> list[psutil.Process]:
        """Every process in its pid namespace but the first."""
        init = self.init
        if init is None:
            return []
        space = _pid_namespace(init.pid)
        pids = [pid for pid in psutil.pids() if pid != init.pid and _pid_namespace(pid) == space]
        found = []
        for pid in pids:
            try:
                found.append(psutil.Process(pid))
            except psutil.NoSuchProcess:
                continue
        return found


def new_key(path: Path, comment: str) -> None:
    """Make an SSH key pair."""
    path.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)], check=True)


def _pid_namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None
