"""`python -m launch.host VERB ...`: what an executor asks of one host. It answers with one JSON object, or frames."""

from __future__ import annotations

import argparse
import json
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from kit.errors import SlipwayError
from launch.host import minder
from launch.host.files import digests
from launch.host.keeper import keep
from launch.host.pod import run_pod
from launch.host.stream import sources, stream
from launch.job import host_job_from, work_from

HEARTBEAT_SECONDS = 3.0


def main(words: list[str]) -> int:
    """Do one verb; errors are JSON too."""
    arguments = _parser().parse_args(words)
    try:
        return int(VERBS[arguments.verb](arguments))
    except SlipwayError as error:
        if arguments.verb == "pod":
            print(error, file=sys.stderr, flush=True)
        else:
            _answer({"error": error.parts(), "exit_code": error.exit_code})
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="launch.host", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("start", "mind", "stop", "kill", "status", "stream"):
        verb = verbs.add_parser(name)
        verb.add_argument("run", type=Path)
        verb.add_argument("--node", type=int, default=0)
        if name == "stream":
            verb.add_argument("--request", default="{}", help="JSON: work, positions")
    files = verbs.add_parser("digests")
    files.add_argument("run", type=Path)
    files.add_argument("folders", nargs="+")
    port = verbs.add_parser("port")
    port.add_argument("address")
    pod = verbs.add_parser("pod")
    pod.add_argument("job", type=Path)
    pod.add_argument("run", type=Path)
    verbs.add_parser("keep").add_argument("folder", type=Path)
    check = verbs.add_parser("check")
    check.add_argument("request", nargs="?", default="{}", help="JSON")
    return parser


def _start(arguments: argparse.Namespace) -> int:
    _answer(minder.start(host_job_from(json.load(sys.stdin))))
    return 0


def _mind(arguments: argparse.Namespace) -> int:
    return minder.mind(arguments.run, arguments.node)


def _stop(arguments: argparse.Namespace) -> int:
    _answer(minder.end(arguments.run, arguments.node, force=arguments.verb == "kill"))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    _answer(minder.status(arguments.run, arguments.node))
    return 0


def _stream(arguments: argparse.Namespace) -> int:
    request = json.loads(arguments.request)
    found = sources(arguments.run, work_from(request["work"]), arguments.node, request.get("positions", {}))
    stream(found, lambda: minder.has_ended(arguments.run, arguments.node), _write, HEARTBEAT_SECONDS)
    return 0


def _digests(arguments: argparse.Namespace) -> int:
    _answer({"digests": digests(arguments.run, arguments.folders)})
    return 0


def _port(arguments: argparse.Namespace) -> int:
    """A port that is free now on this host, where the ranks can meet."""
    with closing(socket.socket()) as found:
        found.bind((arguments.address, 0))
        _answer({"port": found.getsockname()[1]})
    return 0


def _pod(arguments: argparse.Namespace) -> int:
    return run_pod(arguments.job, arguments.run)


def _keep(arguments: argparse.Namespace) -> int:
    return keep(arguments.folder)


def _check(arguments: argparse.Namespace) -> int:
    from launch.host.facts import check

    _answer(check(json.loads(arguments.request)))
    return 0


VERBS = {
    "start": _start,
    "mind": _mind,
    "stop": _stop,
    "kill": _stop,
    "status": _status,
    "stream": _stream,
    "digests": _digests,
    "port": _port,
    "pod": _pod,
    "keep": _keep,
    "check": _check,
}


def _answer(data: dict[str, Any]) -> None:
    print(json.dumps(data), flush=True)


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:
        sys.exit(0)  # the reader has gone; the job has not
