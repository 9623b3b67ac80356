"""When a job has ended, and how, from what its pods do. Pure but for the clock that it is given."""

from __future__ import annotations

from dataclasses import dataclass, field

from launch.executors.kubernetes.names import host_name
from launch.executors.kubernetes.pods import PodView
from launch.executors.protocol import Ending

SILENCED_SECONDS = 5.0

Pods = dict[int, tuple[PodView, bool]]


@dataclass
class Verdict:
    """Looks at the pods again and again.

    Attributes:
        hosts: how many pods the job has.
        patience_seconds: how long the rest may take to end after the first has failed, or after the Job was deleted.
    """

    hosts: int
    patience_seconds: float
    _silent_since: dict[str, float] = field(default_factory=dict)
    _ending_since: float | None = None

    def ending(self, pods: Pods, now: float, silent: frozenset[int] = frozenset()) -> Ending | None:
        """The ending of a job that nobody has deleted; None while it goes on.

        Args:
            pods: index -> pod, and whether it has gone.
            now: the time, in seconds.
            silent: indices of pods whose nodes don't answer.
        """
        self._note_silence(pods, now)
        if self._over(pods) and not self._lost(pods, now, silent):
            return Ending(_codes(pods, self.hosts))
        failed = any(pod.exit_code for pod, _ in pods.values())
        lost = self._lost(pods, now, silent)
        if failed:
            # The Job's controller now ends the others: they have not vanished, they were sent home.
            if self._ending_since is None:
                self._ending_since = now
            if now - self._ending_since < self.patience_seconds:
                return None if not self._others_gone(pods) else Ending(_codes(pods, self.hosts))
            left = [index for index, (pod, gone) in pods.items() if not (gone or pod.ended)]
            return Ending(_codes(pods, self.hosts), tuple(host_name(index) for index in left))
        if lost:
            return Ending(_codes(pods, self.hosts), tuple(host_name(index) for index in lost))
        return None

    def stopped(self, pods: Pods, now: float) -> Ending | None:
        """The ending of a job that somebody has deleted: as soon as its pods have gone."""
        if self._ending_since is None:
            self._ending_since = now
        if self._others_gone(pods) or now - self._ending_since > self.patience_seconds:
            return Ending(_codes(pods, self.hosts))
        return None

    def _over(self, pods: Pods) -> bool:
        return len(pods) == self.hosts and all(pod.exit_code is not None for pod, _ in pods.values())

    def _others_gone(self, pods: Pods) -> bool:
        return all(gone or pod.ended for pod, gone in pods.values())

    def _lost(self, pods: Pods, now: float, silent: frozenset[int]) -> list[int]:
        return [
            index
            for index, (pod, gone) in pods.items()
            if pod.exit_code is None and (gone or pod.lost or index in silent or self._silenced(pod, now))
        ]

    def _note_silence(self, pods: Pods, now: float) -> None:
        for pod, _ in pods.values():
            if pod.silenced:
                self._silent_since.setdefault(pod.uid, now)
            else:
                self._silent_since.pop(pod.uid, None)

    def _silenced(self, pod: PodView, now: float) -> bool:
        """Whether its node has been silent for longer than a hiccup."""
        return now - self._silent_since.get(pod.uid, now) > SILENCED_SECONDS


def _codes(pods: Pods, hosts: int) -> dict[str, int | None]:
    return {host_name(index): pods[index][0].exit_code if index in pods else None for index in range(hosts)}
