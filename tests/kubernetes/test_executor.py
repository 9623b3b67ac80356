"""The life of a job on Kubernetes: start, logs, end, stop, resume, fetch. On an emulated cluster, or a real one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kit.errors import RunFailure, UserError

from .conftest import Cluster, Trial


def test_two_pods_run_to_their_end_and_everything_they_wrote_is_here(trial: Callable[..., Trial]) -> None:
    run = trial()
    run.executor.prepare(run.job, print)
    run.executor.submit(run.job)
    ending = run.executor.wait(run.job)
    assert ending.exit_codes == {"pod-0": 0, "pod-1": 0} and not ending.lost
    for rank in range(2):
        assert run.log(rank).splitlines()[1:] == [f"rank {rank} step {step}" for step in range(1, 9)]
    assert run.events() == ["submitted", "started", "finished"]
    assert len(run.run.metrics_path.read_text().splitlines()) == 8


def test_lines_appear_while_the_job_runs_and_somebody_else_may_watch(trial: Callable[..., Trial]) -> None:
    run = trial(steps=100)
    run.executor.submit(run.job)
    run.wait_until(lambda t: "step 3\n" in t.log(0) and "step 3\n" in t.log(1))
    again = Trial(run.run, run.job)  # another process knows no more than the run directory
    assert again.executor.status(again.job).live
    written: float = 0.0

    def stamp() -> None:
        nonlocal written
        if "step 20\n" in run.log(1) and not written:
            written = time.time()

    ending = again.executor.wait(again.job, stamp)
    assert ending.exit_code == 0 and written
    assert [line for line in run.log(1).splitlines() if "step" in line][1:] == [
        f"rank 1 step {n}" for n in range(1, 101)
    ]
    status = again.executor.status(again.job)
    assert not status.live and "Succeeded" in status.hosts["pod-1"]


def test_stop_lets_ranks_checkpoint_leaves_nothing_and_a_resume_goes_on_from_there(
    trial: Callable[..., Trial], cluster: Cluster
) -> None:
    run = trial(steps=60)
    run.executor.submit(run.job)
    run.wait_until(lambda t: "step 3\n" in t.log(0))
    assert run.executor.stop(run.job)
    assert run.events()[-2:] == ["checkpointed", "stopped"]
    assert not run.executor.status(run.job).live
    if cluster.emulated:
        assert cluster.inside.objects() == [] and cluster.inside.processes() == 0
    last = int(run.log(0).split()[-1])
    run.executor.prepare(run.job, print)
    run.executor.submit(run.job)
    assert run.executor.wait(run.job).exit_code == 0
    assert f"rank 0 starts after step {last}" in run.log(0)
    steps = [int(line.split()[-1]) for line in run.log(0).splitlines() if " step " in line and "starts" not in line]
    assert steps == list(range(1, 61)), "every line of both attempts, once"


def test_a_job_that_does_not_listen_is_killed_after_its_grace(trial: Callable[..., Trial]) -> None:
    run = trial(steps=2000, grace=2, hears=False)
    run.executor.submit(run.job)
    run.wait_until(lambda t: "step 3\n" in t.log(0))
    began = time.monotonic()
    assert not run.executor.stop(run.job)
    assert 2 <= time.monotonic() - began < 50
    assert not run.executor.status(run.job).live


def test_who_watches_sees_that_another_terminal_stopped_the_job(trial: Callable[..., Trial]) -> None:
    run = trial(steps=400)
    run.executor.submit(run.job)
    stopped = False

    def stop_once() -> None:
        nonlocal stopped
        if "step 3\n" in run.log(0) and not stopped:
            stopped = True
            other = Trial(run.run, run.job).executor
            other.stop(run.job)

    ending = run.executor.wait(run.job, stop_once)
    assert not ending.lost and not any(ending.exit_codes.values())
    assert run.events()[-1] == "stopped"
    assert run.log(0).count("rank 0 step 2\n") == 1, "two watchers write every line once"


def test_the_failure_of_one_rank_ends_the_job_and_names_it(trial: Callable[..., Trial]) -> None:
    run = trial(steps=400, fails=[1, 5])
    run.executor.submit(run.job)
    ending = run.executor.wait(run.job)
    assert ending.exit_codes["pod-1"] == 3 and ending.exit_code == 3 and not ending.lost
    assert "failed" in run.events() and "rank 1 step 5" in run.log(1)
    run.executor.recover(run.job, ending)
    assert not run.executor.status(run.job).hosts


def test_a_run_that_is_running_is_not_started_again(trial: Callable[..., Trial]) -> None:
    run = trial(steps=400)
    run.executor.submit(run.job)
    with pytest.raises(UserError, match="still running: Job slipway-"):
        run.executor.submit(run.job)
    run.executor.kill(run.job)
    assert not run.executor.status(run.job).live


def test_artifacts_are_fetched_whole_and_only_once(trial: Callable[..., Trial]) -> None:
    run = trial()
    run.executor.submit(run.job)
    assert run.executor.wait(run.job).exit_code == 0
    said: list[str] = []
    run.executor.fetch(run.job, said.append)
    assert (run.run.artifacts / "model" / "weights.bin").read_bytes() == bytes(range(256)) * 4096
    assert (run.run.artifacts / "note.txt").read_text() == "made in a pod\n"
    assert len(said) == 1 and "Fetched 2 files" in said[0]
    run.executor.fetch(run.job, said.append)
    assert len(said) == 1


def test_parents_come_to_the_volume_once(trial: Callable[..., Trial], cluster: Cluster) -> None:
    parent, run = trial(), trial()
    (parent.run.artifacts / "shards").mkdir()
    (parent.run.artifacts / "shards" / "train.bin").write_bytes(b"\1\2" * 300_000)
    job = replace(run.job, parents=(parent.run.path,))
    said: list[str] = []
    run.executor.prepare(job, said.append)
    run.executor.prepare(job, said.append)
    brought = [words for words in said if "Bringing parent" in words]
    assert len(brought) == 1 and parent.run.id in brought[0]
    if cluster.emulated:
        there = cluster.inside.volume / parent.run.id / "artifacts" / "shards" / "train.bin"
        assert there.read_bytes() == b"\1\2" * 300_000
        assert cluster.inside.objects() == []


def test_without_a_volume_one_is_told_before_and_nothing_is_fetched(
    trial: Callable[..., Trial], cluster: Cluster
) -> None:
    run = trial(cluster.target(claim=None))
    said: list[str] = []
    run.executor.prepare(run.job, said.append)
    assert any("neither kubernetes.claim nor kubernetes.host_path" in words for words in said)
    with pytest.raises(UserError, match="no volume"):
        run.executor.fetch(run.job, said.append)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kubeconfig": "/nowhere/kubeconfig"}, "no usable kubeconfig"),
        ({"context": "elsewhere"}, "no usable kubeconfig"),
        ({"namespace": "not-there"}, "no namespace not-there|no permission"),
        ({"claim": "not-there"}, "no PersistentVolumeClaim not-there"),
        ({"service_account": "nobody"}, "no ServiceAccount nobody"),
        ({"secrets": {"TOKEN": "not-there/key"}}, "no Secret not-there"),
        ({"secrets": {"TOKEN": "plain"}}, "kubernetes.secrets.TOKEN"),
    ],
)
def test_what_the_target_names_wrongly_is_named_before_anything_starts(
    trial: Callable[..., Trial], cluster: Cluster, changes: dict[str, Any], words: str
) -> None:
    run = trial(cluster.target(**changes))
    with pytest.raises(UserError, match=words) as caught:
        run.executor.prepare(run.job, print)
    assert caught.value.expected and caught.value.action


def test_an_image_that_cannot_be_pulled_leaves_nothing(trial: Callable[..., Trial], cluster: Cluster) -> None:
    if cluster.emulated:
        cluster.inside.faults.images = {"slipway:cpu"}
    run = trial(cluster.target(image="registry.invalid/slipway:none"))
    with pytest.raises(RunFailure, match=r"pod slipway-.* does not start: (ErrImagePull|ImagePullBackOff)"):
        run.executor.submit(run.job)
    assert not run.executor.status(run.job).hosts
    if cluster.emulated:
        assert cluster.inside.objects() == []
