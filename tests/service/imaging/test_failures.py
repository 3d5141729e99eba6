import pytest

from service.errors import ServiceError
from service.imaging import decode
from service.imaging.failures import decoding


def run(code: str, file: str) -> None:
    exec(compile(code, file, "exec"), {})  # noqa: S102 - a stand-in for code of that file


@pytest.mark.parametrize("code", ["None.pixels", "len(3)", "missing_name", "assert False"])
def test_a_mistake_in_our_code_is_not_blamed_on_the_file(code: str) -> None:
    with pytest.raises((AttributeError, TypeError, NameError, AssertionError)), decoding("it is damaged"):
        run(code, decode.__file__)


@pytest.mark.parametrize("code", ["None.pixels", "len(3)", "{}[0]", "1 / 0"])
def test_any_error_of_a_library_is_damage_of_the_file(code: str) -> None:
    with pytest.raises(ServiceError, match="it is damaged"), decoding("it is damaged"):
        run(code, "pydicom/dataset.py")


def test_a_library_without_memory_is_not_a_damaged_file() -> None:
    with pytest.raises(MemoryError), decoding("it is damaged"):
        run("raise OSError('could not allocate memory')", "PIL/Image.py")
