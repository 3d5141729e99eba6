import pytest

from service.imaging.window import Window


@pytest.mark.parametrize(("centre", "width"), [(0, 0), (0, -1), (float("nan"), 10), (0, float("inf"))])
def test_a_window_that_is_none_is_refused(centre: float, width: float) -> None:
    with pytest.raises(ValueError, match="window"):
        Window(centre, width)
