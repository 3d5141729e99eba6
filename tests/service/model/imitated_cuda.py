"""An imitation of what the service uses of torch.cuda, on a CPU: streams do nothing, graphs record and replay."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch

Outputs = dict[str, torch.Tensor]


class ImitatedGraph:
    """Replays the passes that were made while it was recorded: from the same inputs into the same outputs."""

    def __init__(self) -> None:
        self.passes: list[tuple[Callable[[torch.Tensor], Outputs], torch.Tensor, Outputs]] = []

    def replay(self) -> None:
        for run, batch, outputs in self.passes:
            for name, value in run(batch).items():
                outputs[name].copy_(value)


class ImitatedStream:
    """A stream on which everything has happened already."""

    def __init__(self, device: torch.device | None = None) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def wait_stream(self, other: "ImitatedStream") -> None:
        pass


class ImitatedCuda:
    """What happened on the device.

    Attributes:
        runs: batch sizes of passes that were no replays, in order.
        recorded: batch sizes of recorded passes, in order.
        threads: names of the threads in which the network ran or was recorded.
        failures: by batch size, the error of its recording.
    """

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.recorded: list[int] = []
        self.threads: set[str] = set()
        self.failures: dict[int, RuntimeError] = {}
        self._recording: ImitatedGraph | None = None

    @property
    def is_recording(self) -> bool:
        """Whether a graph is being recorded."""
        return self._recording is not None

    def network(self, run: Callable[[torch.Tensor], Outputs]) -> Callable[[torch.Tensor], Outputs]:
        """Let graphs record the passes of a network."""

        def watched(batch: torch.Tensor) -> Outputs:
            self.threads.add(threading.current_thread().name)
            outputs = run(batch)
            if self._recording is None:
                self.runs.append(len(batch))
            else:
                if len(batch) in self.failures:
                    raise self.failures[len(batch)]
                self.recorded.append(len(batch))
                outputs = {name: value.clone() for name, value in outputs.items()}
                self._recording.passes.append((run, batch, outputs))
            return outputs

        return watched

    @contextmanager
    def graph(self, graph: ImitatedGraph, **options: Any) -> Iterator[None]:
        assert options["capture_error_mode"] == "thread_local"
        self._recording = graph
        try:
            yield
        finally:
            self._recording = None


@pytest.fixture
def imitated_cuda(monkeypatch: pytest.MonkeyPatch) -> ImitatedCuda:
    """`torch.cuda` on a CPU: what a GPU would hold is in the memory of the host."""
    imitation = ImitatedCuda()
    for name, value in {
        "CUDAGraph": ImitatedGraph,
        "Stream": ImitatedStream,
        "current_stream": ImitatedStream,
        "graph": imitation.graph,
        "graph_pool_handle": object,
        "stream": lambda stream: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    for name in ("empty", "zeros"):
        monkeypatch.setattr(torch, name, _on_the_host(getattr(torch, name)))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    return imitation


def _on_the_host(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def made(*arguments: Any, device: torch.device | None = None, **options: Any) -> torch.Tensor:
        return make(*arguments, **options)

    return made
