"""What clusters do to their clients: conflicts, expired watches, lost answers, slow and lost pods, refusals."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from kit.errors import RunFailure, SlipwayError, UserError
from launch.executors.kubernetes import gang
from launch.executors.protocol import Ending

from .conftest import Cluster, Trial

Make = Callable[..., Trial]


@pytest.fixture(autouse=True)
def only_emulated(cluster: Cluster) -> None:
    assert cluster.inside


def fails_to_start(run: Trial, cluster: Cluster) -> SlipwayError:
    """Submits; nothing may be left."""
    with pytest.raises(SlipwayError) as caught:
        run.executor.submit(run.job)
    assert cluster.inside.objects() == [] and cluster.inside.processes() == 0
    return caught.value


def test_a_job_survives_conflicts_a_busy_server_and_lost_answers(trial: Make, cluster: Cluster) -> None:
    faults = cluster.inside.faults
    run = trial()
    faults.conflicts, faults.busy, faults.lost_answers = 3, 2, 3
    run.executor.submit(run.job)
    assert (faults.conflicts, faults.busy, faults.lost_answers) == (0, 0, 0)
    assert run.executor.wait(run.job).exit_code == 0


def test_an_expired_watch_and_broken_connections_lose_no_line(trial: Make, cluster: Cluster) -> None:
    run = trial(steps=60)
    run.executor.submit(run.job)
    done = {5: cluster.inside.compact, 15: cluster.inside.drop_connections, 30: cluster.inside.compact}

    def disturb() -> None:
        for step in [step for step in done if f"step {step}\n" in run.log(0)]:
            done.pop(step)()

    assert run.executor.wait(run.job, disturb).exit_code == 0
    assert not done
    for rank in range(2):
        assert run.log(rank).splitlines()[1:] == [f"rank {rank} step {step}" for step in range(1, 61)]
    lists = [words for words in cluster.inside.server.requests if "/pods?" in words and "watch" not in words]
    assert len(lists) >= 3, "after 410 the pods are listed again"


def test_slow_pods_are_waited_for_and_the_first_wait_for_the_last(trial: Make, cluster: Cluster) -> None:
    cluster.inside.faults.slow_start_seconds = {0: 3.0}
    run = trial(steps=100)
    began = time.monotonic()
    run.executor.submit(run.job)
    assert time.monotonic() - began > 2.5
    assert run.executor.wait(run.job).exit_code == 0


def test_a_pod_without_a_node_means_no_pod_at_all(trial: Make, cluster: Cluster) -> None:
    cluster.inside.faults.unschedulable = {1}
    error = fails_to_start(trial(cluster.target(start_seconds=2)), cluster)
    assert "-a1-1-" in error.found and "Unschedulable: 0/2 nodes are available" in error.found
    assert "1 of 2 pods ran" in error.found and "start_seconds" in error.action


def test_a_quota_is_named_at_once(trial: Make, cluster: Cluster) -> None:
    cluster.inside.faults.refuse_pods = "exceeded quota: team, requested: cpu=2, used: cpu=8, limited: cpu=8"
    error = fails_to_start(trial(), cluster)
    assert isinstance(error, RunFailure)
    assert "exceeded quota: team" in error.found and "-a1-0" in error.found


@pytest.mark.parametrize("kind", ["Job", "Service", "ConfigMap"])
def test_an_admission_policy_is_quoted_and_nothing_half_made_stays(trial: Make, cluster: Cluster, kind: str) -> None:
    cluster.inside.faults.refuse_objects = {kind: "runs as a user that is not allowed"}
    error = fails_to_start(trial(), cluster)
    assert f"create {kind} slipway-" in error.found and "runs as a user that is not allowed" in error.found


def test_a_missing_secret_is_named_by_the_pod(trial: Make, cluster: Cluster) -> None:
    error = fails_to_start(trial(cluster.target(secrets={"TOKEN": "wandb/key"})), cluster)
    assert 'CreateContainerConfigError: secret "wandb" not found' in error.found


def test_a_secret_reaches_the_ranks_and_no_file_of_ours(trial: Make, cluster: Cluster) -> None:
    cluster.inside.add("Secret", "wandb", stringData={"key": "sesame"}, data={"key": "c2VzYW1l"})
    run = trial(cluster.target(secrets={"TOKEN": "wandb/key"}))
    run.executor.prepare(run.job, print)
    run.executor.submit(run.job)
    run.executor.wait(run.job)
    assert "with secret sesame" in run.log(0)
    written = [path for path in run.run.path.rglob("*") if path.is_file() and "logs" not in path.parts]
    assert not any(b"sesame" in path.read_bytes() for path in written)


def test_expired_credentials_and_missing_permissions_are_named(trial: Make, cluster: Cluster) -> None:
    run, faults = trial(), cluster.inside.faults
    faults.forbidden = {"create jobs", "get pods/log"}
    with pytest.raises(UserError, match=r"no permission in namespace slipway-test .* to create jobs, get pods/log"):
        run.executor.prepare(run.job, print)
    faults.forbidden = set()
    faults.unauthorized = True
    with pytest.raises(UserError, match="refuses the credentials"):
        run.executor.prepare(run.job, print)
    faults.unauthorized = False


def test_a_cluster_that_is_off_is_named(trial: Make, cluster: Cluster) -> None:
    run = trial()
    text = cluster.inside.kubeconfig.read_text()
    cluster.inside.kubeconfig.write_text(text.replace(f":{cluster.inside.port}", ":9"))
    with pytest.raises(UserError, match=r"no answer from the cluster at http://127.0.0.1:9"):
        run.executor.prepare(run.job, print)


def restarted(run: Trial, ending: Ending) -> list[int]:
    """Recovers, runs again, and gives the steps that rank 0 did in both attempts."""
    run.executor.recover(run.job, ending)
    run.executor.submit(run.job)
    assert run.executor.wait(run.job).exit_code == 0
    return [int(line.split()[-1]) for line in run.log(0).splitlines() if line.startswith("rank 0 step")]


def test_an_evicted_pod_is_lost_and_the_job_starts_again_elsewhere(trial: Make, cluster: Cluster) -> None:
    run = trial(steps=40)
    run.executor.submit(run.job)
    run.wait_until(lambda t: "step 3\n" in t.log(1))
    cluster.inside.evict(1)
    ending = run.executor.wait(run.job)
    assert ending.lost == ("pod-1",)
    assert "Evicted: The node was low on memory" in (run.run.logs / "host-pod-1.log").read_text()
    assert restarted(run, ending)[-40:] == list(range(1, 41))


def test_a_pod_that_somebody_deletes_is_not_taken_for_a_stop(trial: Make, cluster: Cluster) -> None:
    run = trial(steps=400, hears=False, grace=1)
    run.executor.submit(run.job)
    run.wait_until(lambda t: "step 3\n" in t.log(1))
    cluster.inside.delete_pod(1)
    ending = run.executor.wait(run.job)
    assert ending.exit_code not in (0, None) or ending.lost


def test_a_killed_container_is_named_with_its_code(trial: Make, cluster: Cluster) -> None:
    run = trial(steps=400)
    run.executor.submit(run.job)
    run.wait_until(lambda t: "step 3\n" in t.log(1))
    cluster.inside.kill_container(1)
    ending = run.executor.wait(run.job)
    assert ending.exit_codes["pod-1"] == 137 and not ending.lost


def test_a_silent_node_is_named_as_soon_as_the_cluster_says_so(trial: Make, cluster: Cluster) -> None:
    run = trial(steps=400)
    run.executor.submit(run.job)
    run.wait_until(lambda t: "step 3\n" in t.log(1))
    cluster.inside.silence(1)
    cluster.inside.notice_silence(1)
    began = time.monotonic()
    ending = run.executor.wait(run.job)
    assert ending.lost == ("pod-1",) and time.monotonic() - began < 30


def test_what_is_left_on_a_silent_node_is_removed_by_force(
    trial: Make, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gang, "FORCE_SECONDS", 2.0)
    run = trial(steps=400)
    run.executor.submit(run.job)
    cluster.inside.silence(1)
    run.executor.recover(run.job, Ending(lost=("pod-1",)))
    assert cluster.inside.objects() == []
