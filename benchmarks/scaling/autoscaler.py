"""A HorizontalPodAutoscaler as the controller of Kubernetes computes it, with the settings of the overlay."""

import math
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

SYNC_SECONDS: Final = 15
_TOLERANCE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Policy:
    """A limit of the change in a period: a percentage or a number of pods."""

    type: str
    value: int
    period_seconds: int

    def pods(self, replicas: int) -> int:
        """Return the largest change of this many replicas."""
        return math.ceil(replicas * self.value / 100) if self.type == "Percent" else self.value


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the autoscaler.

    Attributes:
        least: replicas.
        most: replicas.
        queue_seconds: target of the mean wait for the network; None ignores it.
        processor_share: target of the use of the requested processors, 0 to 1; None ignores it.
        window_seconds: before a scale-down, the highest recommendation of this time counts.
        up: policies; the largest change counts.
        down: policies; the largest change counts.
    """

    least: int
    most: int
    queue_seconds: float | None
    processor_share: float | None
    window_seconds: int
    up: tuple[Policy, ...]
    down: tuple[Policy, ...]

    @classmethod
    def read(cls, path: Path) -> "Settings":
        """Read KEDA's ScaledObject with a trigger on the queue and one on the processors."""
        spec: dict[str, Any] = yaml.safe_load(path.read_text())["spec"]
        metadata = {trigger["type"]: trigger["metadata"] for trigger in spec["triggers"]}
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        return cls(
            least=spec["minReplicaCount"],
            most=spec["maxReplicaCount"],
            queue_seconds=float(metadata["prometheus"]["threshold"]),
            processor_share=int(metadata["cpu"]["value"]) / 100,
            window_seconds=behavior["scaleDown"]["stabilizationWindowSeconds"],
            up=_policies(behavior["scaleUp"]),
            down=_policies(behavior["scaleDown"]),
        )

    def only(self, *, queue: bool = False, processors: bool = False) -> "Settings":
        """Return a copy with one of the two triggers."""
        return replace(
            self,
            queue_seconds=self.queue_seconds if queue else None,
            processor_share=self.processor_share if processors else None,
        )

    def fixed(self, replicas: int) -> "Settings":
        """Return a copy that always has this many replicas."""
        return replace(self, least=replicas, most=replicas, queue_seconds=None, processor_share=None)


class Autoscaler:
    """The state of one autoscaler; it starts with the least replicas."""

    def __init__(self, settings: Settings) -> None:
        self.replicas = settings.least
        self._settings = settings
        self._recommended: deque[tuple[float, int]] = deque()
        self._changes: list[tuple[float, int]] = []

    def sync(self, now: float, ready: int, queue_seconds: float, busy_processor_share: float) -> int:
        """Choose the number of replicas.

        Args:
            now: seconds.
            ready: replicas that are ready.
            queue_seconds: mean wait of the last minute.
            busy_processor_share: mean use of the processors of the ready replicas, 0 to 1.

        Returns:
            The new number of replicas.
        """
        settings = self._settings
        wanted = [settings.least]
        if settings.queue_seconds is not None:
            wanted.append(self._scaled(queue_seconds / settings.queue_seconds, ready))
        if settings.processor_share is not None:
            share = busy_processor_share / settings.processor_share
            if share > 1:  # replicas that are not ready count as idle
                share = max(1.0, share * ready / self.replicas)
                wanted.append(self._scaled(share, self.replicas))
            else:
                wanted.append(self._scaled(share, ready))
        self._change(now, min(max(wanted), settings.most))
        return self.replicas

    def _scaled(self, ratio: float, counted: int) -> int:
        return self.replicas if abs(ratio - 1) <= _TOLERANCE else math.ceil(ratio * counted)

    def _change(self, now: float, wanted: int) -> None:
        settings = self._settings
        self._recommended.append((now, wanted))
        while self._recommended[0][0] < now - settings.window_seconds:
            self._recommended.popleft()
        if wanted > self.replicas:
            limits = [self._start(now, each) + each.pods(self._start(now, each)) for each in settings.up]
            wanted = max(self.replicas, min(wanted, max(limits)))
        else:
            wanted = min(self.replicas, max(each for _, each in self._recommended))
            limits = [self._start(now, each) - each.pods(self._start(now, each)) for each in settings.down]
            wanted = min(self.replicas, max(wanted, min(limits), settings.least))
        if wanted != self.replicas:
            self._changes.append((now, wanted - self.replicas))
            self.replicas = wanted

    def _start(self, now: float, policy: Policy) -> int:
        """Return the replicas at the start of a policy's period."""
        return self.replicas - sum(change for at, change in self._changes if at > now - policy.period_seconds)


def _policies(rules: dict[str, Any]) -> tuple[Policy, ...]:
    return tuple(Policy(each["type"], each["value"], each["periodSeconds"]) for each in rules["policies"])
