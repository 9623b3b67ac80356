"""Makes hosts ready for a job: one quick question to each; what is missing is brought by Ansible.

A host that has everything answers from its stamps and takes the run's own files in the same connection.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.ansible import run_playbook
from kit.errors import RunFailure, UserError
from kit.files import sha256_bytes
from kit.target import Host, Target
from launch.executors.container import LOOK, container_mark, refusal, wrapper
from launch.executors.pieces import (
    Piece,
    ancestor_pieces,
    checkpoint_piece,
    input_piece,
    parent_pieces,
    run_archive,
    source_piece,
    write_pieces,
)
from launch.executors.ssh_command import NOT_REACHED, not_reached, ssh_command, ssh_options
from launch.job import JobDescription, Place
from launch.recipe_files import ROOT

ASK_SECONDS = 60.0
CHECK_SECONDS = 3600.0
GIB = 1 << 30
ENVIRONMENT_GIB = {"cpu": 6, "default": 12}
SLOW = ("Copy the code", "Make the environment")  # tasks that are worth a line
SAY = "slipway:"
# Arguments: workdir, folder of runs, interpreter, run id (empty: no run files), then what must be there.
QUESTION = """
absolute() { case $1 in "~") echo "$HOME";; "~/"*) echo "$HOME/${1#??}";; /*) echo "$1";; *) echo "$HOME/$1";; esac; }
work=$(absolute "$1"); runs=$(absolute "$2"); run=$4; missing=
case $3 in
  venv/*|containers/*) python=$work/$3;; */*) python=$(absolute "$3");; *) python=$(command -v "$3" || echo "$3");;
esac
echo "slipway:work $work"; echo "slipway:runs $runs"; echo "slipway:python $python"
shift 4; IFS=
for word; do
  case $word in
    work:*) [ -e "$work/stamps/${word#*:}" ] || { missing=1; echo "slipway:missing ${word#*:}"; };;
    runs:*) [ -e "$runs/stamps/${word#*:}" ] || { missing=1; echo "slipway:missing ${word#*:}"; };;
    path:*) set -- ${word#*:}; [ -e "$1" ] || { missing=1; echo "slipway:absent ${word#*:}"; };;
  esac
done
[ -x "$python" ] || { missing=1; echo "slipway:missing python"; }
if [ -z "$missing" ] && [ -n "$run" ]; then
  cd "$runs" && mkdir -p work && cd runs && mkdir -p "$run" && cd "$run" || exit 1
  mkdir -p logs checkpoints artifacts report processes && tar -xf - || exit 1
fi
[ -n "$missing" ] || echo "slipway:ready"
"""


@dataclass(frozen=True)
class Wanted:
    """What a job's hosts must have.

    Attributes:
        environment: The name of the environment's stamp.
        python: The interpreter; below `venv/` or `containers/` in the workdir where it is made there.
        source: The code's folder below the workdir.
        absolute: Paths that must be there already.
    """

    environment: str
    python: str
    source: str
    pieces: tuple[Piece, ...]
    absolute: tuple[str, ...]

    def stamps(self, host_has_runs: bool) -> list[str]:
        """What one host is asked for."""
        named = [
            f"{'runs' if p.with_runs else 'work'}:{p.name}" for p in self.pieces if host_has_runs or not p.with_runs
        ]
        return [f"work:{self.environment}", *named, *(f"path:{path}" for path in self.absolute)]


@dataclass(frozen=True)
class Answer:
    """What one host said."""

    host: Host
    work: str
    runs: str
    python: str
    missing: tuple[str, ...]
    absent: tuple[str, ...]
    ready: bool


def prepare_hosts(job: JobDescription, hosts: Sequence[Host], say: Callable[[str], None]) -> dict[str, Place]:
    """Brings what a job needs to its hosts; returns each one's place, without a port to meet at.

    Raises:
        UserError: A host refuses us or isn't reached, or an input that must be there isn't.
        RunFailure: A host can't be made ready.
    """
    wanted = _wanted(job)
    answers = _ask(job, hosts, wanted)
    unready = [answer for answer in answers if not answer.ready]
    if unready:
        say(f"Preparing {', '.join(answer.host.name for answer in unready)} ...")
        _bring(job, unready, wanted, say)
        answers = _ask(job, hosts, wanted)
        for answer in answers:
            if not answer.ready:
                raise RunFailure(
                    f"host {answer.host.name} still lacks {', '.join(answer.missing)} after it was prepared",
                    expected="everything that the job needs",
                    action=f"remove {answer.work}/stamps on {answer.host.name} and try again",
                )
    return {answer.host.name: _place(job, wanted, answer, node) for node, answer in enumerate(answers)}


def _wanted(job: JobDescription) -> Wanted:
    settings = job.target.environment
    inputs, absolute = input_piece(job)
    if settings.mode == "container":
        mark = container_mark(job.target, absolute)
        python = f"containers/{mark}/python"
    else:
        lock = sha256_bytes((ROOT / "requirements" / "lock.txt").read_bytes())
        mark = hashlib.sha256(f"{settings.mode} {settings.python} {settings.torch} {lock}".encode()).hexdigest()[:12]
        python = f"venv/{mark}/bin/python" if settings.mode == "venv" else settings.python
    source, folder = source_piece()
    checkpoint = checkpoint_piece(job)
    pieces = (source, *parent_pieces(job), *ancestor_pieces(job))
    pieces += tuple(piece for piece in (inputs, checkpoint) if piece is not None)
    return Wanted(f"environment-{mark}", python, folder, pieces, tuple(absolute))


def _ask(job: JobDescription, hosts: Sequence[Host], wanted: Wanted) -> list[Answer]:
    """Ask every host at once what it lacks. A ready one takes the run's files.

    Raises:
        UserError: A host isn't reached, or lacks an input that must be there.
        RunFailure: A host's answer is not one.
    """
    archive = run_archive(job.run)

    def ask(node: int) -> Answer:
        has_runs = node == 0 or not job.target.storage
        roots = [job.target.workdir, job.target.storage or job.target.workdir]
        words = [*roots, wanted.python, job.id if has_runs else "", *wanted.stamps(has_runs)]
        return _answer(hosts[node], _on_host(job.target, hosts[node], QUESTION, words, archive))

    with ThreadPoolExecutor(len(hosts)) as pool:
        asked = [pool.submit(ask, node) for node in range(len(hosts))]
    answers = [future.result() for future in asked]
    for answer in answers:
        if answer.absent:
            raise UserError(
                f"host {answer.host.name} has no {answer.absent[0]}",
                expected="an input with an absolute path at that place on every host",
                action="put it there, or name it by a path below the working directory: then it is copied",
            )
    return answers


def _on_host(target: Target, host: Host, script: str, words: Sequence[str], given: bytes) -> str:
    """Run a shell script on a host; what it printed."""
    command = ssh_command(target, host, "sh", "-c", script, "sh", *words)
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=CHECK_SECONDS)
    except subprocess.TimeoutExpired:
        raise not_reached(target, host, f"no answer in {CHECK_SECONDS:.0f} s") from None
    errors = done.stderr.decode(errors="replace")
    if done.returncode == NOT_REACHED:
        raise not_reached(target, host, errors)
    if done.returncode:
        raise RunFailure(
            f"host {host.name}: exit code {done.returncode}: {' / '.join(errors.strip().splitlines()[-3:])}",
            expected=f"a shell and a folder that may be written to ({target.storage or target.workdir})",
            action=f"log in to {host.name} and look, or choose another `workdir` in the target",
        )
    return done.stdout.decode(errors="replace")


def _answer(host: Host, text: str) -> Answer:
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith(SAY):
            word, _, rest = line.removeprefix(SAY).partition(" ")
            said.setdefault(word, []).append(rest)
    if not {"work", "runs", "python"} <= set(said):
        raise RunFailure(
            f"host {host.name} gave no answer that can be read: {text.strip()[-200:]!r}",
            expected="a login shell that runs `sh`",
            action=f"try `ssh {host.reach} sh -c 'echo hello'`",
        )
    first = {word: rest[0] for word, rest in said.items()}
    lacks = tuple(said.get("missing", ())), tuple(said.get("absent", ()))
    return Answer(host, first["work"], first["runs"], first["python"], *lacks, ready="ready" in said)


def _bring(job: JobDescription, answers: Sequence[Answer], wanted: Wanted, say: Callable[[str], None]) -> None:
    """Run the playbook on hosts that lack something: each gets what any of them lacks."""
    lacking = {name for answer in answers for name in answer.missing}
    if job.target.environment.mode == "container":
        _look_for_image(job.target, [answer.host for answer in answers if _needs_environment(answer, wanted)], say)
    with tempfile.TemporaryDirectory(prefix="slipway-pieces-") as folder:
        archives: dict[bool, Path] = {}
        for with_runs in (False, True):
            pieces = [piece for piece in wanted.pieces if piece.name in lacking and piece.with_runs is with_runs]
            if pieces:
                archives[with_runs] = Path(folder) / f"pieces-{int(with_runs)}.tar"
                sums = [piece.sums() for piece in pieces]
                takers = [answer for answer in answers if not with_runs or _takes_runs(job, answer)]
                changed = [_changed(job.target, takers, *pair) for pair in zip(pieces, sums, strict=True)]
                write_pieces(archives[with_runs], pieces, sums, changed)
        hosts = {answer.host.name: _variables(job, answer, wanted, lacking, archives) for answer in answers}
        settings = job.target.environment
        common: dict[str, Any] = {"mode": settings.mode, "torch": settings.torch, "made_by": settings.python}
        makes = settings.mode == "venv" and any(_needs_environment(answer, wanted) for answer in answers)
        slow = SLOW if makes else SLOW[:1]

        def tell(task: str) -> None:
            if task.startswith(slow):
                say(f"  {task}")

        run_playbook("prepare", {"all": {"hosts": hosts}}, common, tell)


def _needs_environment(answer: Answer, wanted: Wanted) -> bool:
    return wanted.environment in answer.missing or "python" in answer.missing


def _look_for_image(target: Target, hosts: Sequence[Host], say: Callable[[str], None]) -> None:
    """See that hosts have the engine and the image, which is pulled where it is not there.

    Raises:
        UserError: A host has no engine.
        RunFailure: Its engine doesn't answer, or can't pull the image, or the image lacks packages.
    """
    if not hosts:
        return
    settings = target.environment
    say(f"  Look for {settings.engine} and {settings.image}, and pull it where it is not there")
    words = [settings.engine, settings.image]
    with ThreadPoolExecutor(len(hosts)) as pool:
        answers = list(pool.map(lambda host: _on_host(target, host, LOOK, words, b""), hosts))
    for host, printed in zip(hosts, answers, strict=True):
        error = refusal(target, host, printed)
        if error is not None:
            raise error


def _takes_runs(job: JobDescription, answer: Answer) -> bool:
    """Whether runs, parents and inputs go to this host: to every one, or where they share a folder to the first."""
    return not job.target.storage or answer.host == job.target.hosts[0]


def _changed(target: Target, takers: Sequence[Answer], piece: Piece, sums: str) -> set[str]:
    """The files of a piece that at least one host lacks or has otherwise."""
    script = 'cd "$1" 2>/dev/null && echo there && sha256sum --check --quiet - 2>/dev/null; true'
    changed: set[str] = set()
    for answer in takers:
        root = answer.runs if piece.with_runs else answer.work
        lines = _on_host(target, answer.host, script, [root], sums.encode()).splitlines()
        if lines[:1] != ["there"]:
            return set(piece.files)
        changed |= {line.rpartition(": ")[0] for line in lines[1:]} & set(piece.files)
    return changed


def _variables(
    job: JobDescription, answer: Answer, wanted: Wanted, lacking: set[str], archives: dict[bool, Path]
) -> dict[str, Any]:
    """What the playbook is told about one host."""
    target = job.target
    taken = {kind: path for kind, path in archives.items() if not kind or _takes_runs(job, answer)}
    roots = {False: answer.work, True: answer.runs}
    pieces = [p for p in wanted.pieces if p.name in lacking and p.with_runs in taken]
    needs_environment = _needs_environment(answer, wanted)
    making = ENVIRONMENT_GIB[target.environment.torch] if needs_environment and target.environment.mode == "venv" else 0
    size = sum(path.stat().st_size for path in taken.values())
    own = {"python": answer.python, "venv": target.environment.python, "container": "python3"}
    variables: dict[str, Any] = {
        "ansible_host": answer.host.reach,
        "ansible_ssh_common_args": shlex.join(ssh_options(target, answer.host)),
        "ansible_remote_tmp": f"{answer.work}/.ansible",
        "ansible_python_interpreter": own[target.environment.mode],
        "workdir": answer.work,
        "runs": answer.runs,
        "source": f"{answer.work}/{wanted.source}",
        "python": answer.python,
        "environment_stamp": wanted.environment if needs_environment else "",
        "archives": [{"path": str(path), "root": roots[kind]} for kind, path in taken.items()],
        "pieces": [{"name": piece.name, "root": roots[piece.with_runs]} for piece in pieces],
        "need_mib": (2 * size >> 20) + 100 + making * 1024,
    }
    if target.environment.mode == "container" and needs_environment:
        mark = Path(answer.python).parent.name
        script = wrapper(target, mark, answer.work, answer.runs, wanted.absolute)
        # Encoded, for Ansible would fill in what stands in double braces.
        variables["wrapper"] = base64.b64encode(script.encode()).decode()
    user = target.ssh.user if target.ssh else None
    return {**variables, "ansible_user": user} if user else variables


def _place(job: JobDescription, wanted: Wanted, answer: Answer, node: int) -> Place:
    return Place(
        python=answer.python,
        run=f"{answer.runs}/runs/{job.id}",
        node=node,
        address=answer.host.reach,
        working_directory=f"{answer.runs}/work",
        source=f"{answer.work}/{wanted.source}",
    )
