"""The cage without an event loop, as the command line uses it."""

import os

import numpy as np
import psutil
import pytest

from service.errors import ServiceError, UnusableImageError
from service.imaging.cage.blocking import BlockingCage
from service.imaging.cage.limits import CageLimits
from service.imaging.decode import DecodeLimits, decode, to_input
from service.imaging.series.files import ReadOptions
from tests.support.files.bombs import jpeg_of_many_scans
from tests.support.files.dicoms import ct, phantom
from tests.support.processes.client import png
from tests.support.processes.family import is_running

OPTIONS = ReadOptions(32, DecodeLimits())


def test_files_are_read_one_after_the_other_and_one_that_does_not_end_stops_no_other() -> None:
    before = set(psutil.Process(os.getpid()).children())
    stored = np.stack([phantom()] * 3)
    with BlockingCage(CageLimits(seconds=0.3)) as cage:
        with pytest.raises(UnusableImageError, match=r"more than 0\.3 seconds"):
            cage.network_input(jpeg_of_many_scans(scans=100_000), 32)
        np.testing.assert_array_equal(cage.network_input(png(), 32), to_input(decode(png()), 32))
        first = next(iter(cage.study_slices(ct(stored), "a", OPTIONS)))
        assert not isinstance(first, ServiceError), "a reader may stop before the last frame"
        assert len(list(cage.study_slices(ct(stored), "a", OPTIONS))) == 3
        started = set(psutil.Process(os.getpid()).children()) - before
    assert started
    assert not any(is_running(process) for process in started)
