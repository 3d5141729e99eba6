"""Latency of the service below capacity and when idle."""

import json
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import httpx2

from benchmarks.bare import BareLoop
from benchmarks.contenders import Contender
from benchmarks.load import load_with_wrk, poisson, send_at_pace, steady, wait_for_response
from benchmarks.results import Idle, Pace

_SHARE: Final = 0.8
_IDLE_REQUESTS: Final = 100


def measure_paces(contender: Contender, image: Path, log: Path, seconds: int) -> list[Pace]:
    """Measure latency at four fifths of capacity, for some seconds with regular and with random arrivals each."""
    data = image.read_bytes()
    paces = []
    with contender.running(log) as process:
        wait_for_response(process, contender.url, data)
        capacity = load_with_wrk(contender.url, image, 4, 10).rate
        rate = _SHARE * capacity
        count = max(100, round(seconds * rate))
        for arrivals, gaps in (("steady", steady(rate, count)), ("poisson", poisson(rate, count))):
            durations = send_at_pace(contender.url, data, gaps)
            times = quantiles((1000 * duration for duration in durations), n=100)
            pace = Pace(
                precision=contender.precision,
                arrivals=arrivals,
                share=_SHARE,
                count=len(durations),
                failed=count - len(durations),
                p50_ms=times[49],
                p99_ms=times[98],
            )
            paces.append(pace)
    return paces


def measure_idle(contender: Contender, bare: BareLoop, image: Path, log: Path) -> Idle:
    """Measure single requests to an idle service, alternating with decoding and the network in this process."""
    data = image.read_bytes()
    request = httpx2.Request("POST", contender.url, files={"image": data})
    body, headers = request.read(), dict(request.headers)
    totals, above, alone = [], [], []
    with contender.running(log) as process:
        wait_for_response(process, contender.url, data)
        # the standard library's client adds the least time
        with closing(HTTPConnection(request.url.host, request.url.port)) as connection:
            for _ in range(_IDLE_REQUESTS):
                started = time.perf_counter()
                connection.request("POST", contender.path, body, headers)
                response = connection.getresponse().read()
                totals.append(1000 * (time.perf_counter() - started))
                stages = json.loads(response)["timings_milliseconds"]
                above.append(totals[-1] - stages["decode"] - stages["inference"])
                alone.append(1000 * bare.seconds_with_decoding())
    return Idle(
        precision=contender.precision,
        count=_IDLE_REQUESTS,
        http_ms=median(totals),
        above_ms=median(above),
        bare_ms=median(alone),
    )
