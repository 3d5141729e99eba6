"""`python -m benchmarks.gpu`: the network and the service on a GPU; needs neither wrk nor other frameworks."""

import argparse
import asyncio
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks.environments import ROOT
from benchmarks.gpu.load import Load, is_ready, load
from service.model.card import Precision
from service.model.choice import choose_file
from service.model.file import Network, load_model, read_manifest, synthetic_slice
from service.model.predictor import sizes_of_batches
from training.run.record import Record

_JSON: Final = ROOT / "docs" / "performance-gpu.json"
_IMAGE: Final = ROOT / "examples" / "slice.png"
_FLOP: Final = 39e9
"""Floating-point operations of a pass of model 2.0.0."""
_LARGEST_BATCH: Final = 64
_CONNECTIONS: Final = (1, 16, 64, 256)
_MOST_REQUESTS: Final = "512"
_PORT: Final = 8710
_START_SECONDS: Final = 120
_MATRIX: Final = 8192


class GpuResults(Record):
    """Results on one card.

    Attributes:
        card: its name, or `cpu`.
        bare_rates: slices per second of the bare network by batch size.
        matrix_flops: floating-point operations per second of a product of two large fp16 matrices: the card's limit.
        share_of_limit: best bare rate times the operations of a pass, divided by that limit.
        peak_mib: memory that torch allocated for the bare network.
        loads: of the service over HTTP.
        note: what was not measured, and why.
    """

    card: str
    torch: str
    model: str
    precision: Precision
    bare_rates: dict[int, float]
    matrix_flops: float
    share_of_limit: float
    peak_mib: float
    loads: list[Load]
    note: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the bare network by batch size and the service by number of connections; write one JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=main.__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: only to try this program")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="duration of each load in seconds; a batch size: half"
    )
    parser.add_argument("--largest-batch", type=int, default=_LARGEST_BATCH)
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="folder with the model files")
    parser.add_argument("--json", type=Path, default=_JSON, help="file for the results")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("error: no GPU was found", file=sys.stderr)
        return 1
    results = _measure(options, device)
    options.json.write_text(results.model_dump_json(indent=1) + "\n")
    print(results.model_dump_json(indent=1))
    return 0


def _measure(options: argparse.Namespace, device: torch.device) -> GpuResults:
    precision: Precision = "fp16" if device.type == "cuda" else "fp32"
    file = choose_file(read_manifest(options.models), precision)
    artifact = load_model(options.models / file.name, device, precision, file.sha256)
    sizes = sizes_of_batches(options.largest_batch)
    example = torch.from_numpy(np.array(synthetic_slice(0, artifact.card.input_size)))[None].to(device)
    rates = _rates(artifact.network, example, sizes, options.seconds / 2)
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
    with torch.inference_mode():
        side = _MATRIX if device.type == "cuda" else 512
        left = torch.zeros(side, side, dtype=torch.float16 if device.type == "cuda" else torch.float32, device=device)
        limit = 2 * side**3 * _runs_per_second(lambda: left @ left, device, options.seconds / 4)
    loads, note = _measure_service(options, device)
    return GpuResults(
        card=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        torch=torch.__version__,
        model=f"{artifact.card.name} {artifact.card.version}",
        precision=precision,
        bare_rates=rates,
        matrix_flops=limit,
        share_of_limit=max(rates.values()) * _FLOP / limit,
        peak_mib=peak,
        loads=loads,
        note=note,
    )


def _rates(network: Network, example: torch.Tensor, sizes: Sequence[int], seconds: float) -> dict[int, float]:
    """Measure slices per second by batch size, for some seconds each."""
    rates = {}
    with torch.inference_mode():
        for size in sizes:
            batch = example.repeat(size, 1, 1, 1)
            rates[size] = size * _runs_per_second(partial(network, batch), example.device, seconds)
            print(f"batch of {size}: {rates[size]:.0f} slices/s", flush=True)
    return rates


def _runs_per_second(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Call `run` for at least `seconds` seconds, after a tenth of that, and wait for the device at the end."""
    count, started = 0, time.perf_counter()
    for wanted in (seconds / 10, seconds):
        _wait_for(device)
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < wanted or count < 3:  # the first runs compile
            run()
            count += 1
            if count % 8 == 0:
                _wait_for(device)  # otherwise the queue of the device grows for seconds
        _wait_for(device)
    return count / (time.perf_counter() - started)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _measure_service(options: argparse.Namespace, device: torch.device) -> tuple[list[Load], str]:
    missing = [name for name in ("fastapi", "uvicorn", "pydantic_settings") if importlib.util.find_spec(name) is None]
    if missing:
        return [], f"the service was not measured: {', '.join(missing)} not installed here"
    image = _IMAGE.read_bytes()
    loads = []
    with _service(options.models, device):
        asyncio.run(load(_PORT, image, 1, 0.1))
        for connections in _CONNECTIONS:
            measured = asyncio.run(load(_PORT, image, connections, options.seconds))
            loads.append(measured)
            print(
                f"{connections} connections: {measured.rate:.0f} responses/s, p99 {measured.p99_ms:.0f} ms", flush=True
            )
    return loads, ""


@contextmanager
def _service(models: Path, device: torch.device) -> Iterator[None]:
    """Run the service until the end of the context.

    Raises:
        RuntimeError: it ended, or is not ready in time.
    """
    variables = {
        "COVIDCT_MODELS_DIR": str(models.resolve()),
        "COVIDCT_DEVICE": device.type,
        "COVIDCT_PORT": str(_PORT),
        "COVIDCT_QUEUE_MAX_LENGTH": _MOST_REQUESTS,
        "COVIDCT_MAX_CONCURRENT_REQUESTS": _MOST_REQUESTS,
        "COVIDCT_MAX_CONNECTIONS": "1024",
        "COVIDCT_OUT_OF_DISTRIBUTION": "flag",
        "COVIDCT_LOG_LEVEL": "WARNING",
    }
    others = {name: value for name, value in os.environ.items() if not name.startswith("COVIDCT_")}
    process = subprocess.Popen([sys.executable, "-m", "service"], cwd=ROOT, env=others | variables)
    try:
        started = time.perf_counter()
        while not asyncio.run(is_ready(_PORT)):
            if process.poll() is not None or time.perf_counter() - started > _START_SECONDS:
                raise RuntimeError("the service did not become ready; its log is above")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
