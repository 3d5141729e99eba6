from training.spread import spread_of


def test_several_runs_have_a_mean_and_the_deviation_of_a_sample() -> None:
    spread = spread_of([0.7, 0.8, 0.9])
    assert (spread.mean, spread.deviation) == (0.8, 0.1)
    assert str(spread) == "0.800 ± 0.100"


def test_a_single_run_has_no_deviation() -> None:
    assert str(spread_of([0.81])) == "0.810"
