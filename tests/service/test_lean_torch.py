import subprocess
import sys

_SERVE = """
import sys
from service.lean_torch import import_torch_without_meta_kernels
import_torch_without_meta_kernels()
import torch
stub = sys.modules["torch._meta_registrations"]
import service.inference.service_state, service.web.app
assert sys.modules["torch._meta_registrations"] is stub, "something imported it"
assert not hasattr(stub, "__path__")
"""


def test_serving_needs_no_meta_kernels() -> None:
    run(_SERVE + "assert 'torch._decomp.decompositions' not in sys.modules")


def test_the_meta_kernels_are_imported_when_they_are_asked_for() -> None:
    run(
        _SERVE
        + """
from torch._meta_registrations import meta_conv
assert sys.modules["torch._meta_registrations"] is not stub
assert stub.meta_conv is meta_conv
"""
    )


def test_torch_that_was_imported_stays_as_it_is() -> None:
    run(
        """
import sys, torch
before = sys.modules["torch._meta_registrations"]
from service.lean_torch import import_torch_without_meta_kernels
import_torch_without_meta_kernels()
assert sys.modules["torch._meta_registrations"] is before
"""
    )


def run(program: str) -> None:
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
