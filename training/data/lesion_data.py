"""All inputs of the recipe `lesion`, read and checked before the training."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Final, NamedTuple

from service.model.card import SplitFingerprint
from training.data.covid_ct import CovidCt, Split, read_covid_ct
from training.data.ct_slices import (
    CtSlice,
    fingerprints,
    from_covid_ct,
    read_corrections,
    read_images,
    read_labelled,
    read_lesions,
)
from training.data.near_copies import find_near_copies
from training.data.patients import group_by_paper, known_patients
from training.errors import TrainingError, describe

TEST: Final = "official test"
"""Use of the slices that are never trained on."""


@dataclass(frozen=True, slots=True)
class LesionPaths:
    """Folders and tables of a release; each has the name of its option."""

    data: Path
    lesions: Path
    clear: Path
    labelled: tuple[Path, ...] = ()
    unseen: Path | None = None
    other: Path | None = None
    counts: str = "official"
    patients: Path | None = None
    exclude: Path | None = None
    corrections: Path | None = None


@dataclass(frozen=True, slots=True)
class LesionData:
    """Everything that a release reads.

    Attributes:
        train: slices to learn from, of all sources.
        test: official test of COVID-CT, with official labels.
        originals: the same slices, as they are in their files.
        patients_are_known: whether the groups of test are patients.
        known_papers: names of test slices that share a paper or a patient with a training slice.
        corrections: path of a COVID-CT slice -> its true label, None where it has none.
        other: pictures that are not chest slices, for training and for measuring refusals.
        unseen: further chest slices that are never trained on, for measuring refusals.
    """

    train: list[CtSlice]
    test: list[CtSlice]
    originals: Split
    patients_are_known: bool
    known_papers: frozenset[str]
    corrections: Mapping[str, int | None]
    other: list[CtSlice]
    unseen: list[CtSlice]

    @property
    def test_patients(self) -> list[str] | None:
        """Patient of each test slice; None if they are not known."""
        return [slice_.group for slice_ in self.test] if self.patients_are_known else None

    def fingerprints(self) -> dict[str, SplitFingerprint]:
        """Identify all data that a model is made from."""
        test = {f"{name} test": fingerprint for name, fingerprint in fingerprints(self.test).items()}
        return fingerprints(self.train) | test

    @property
    def other_for_training(self) -> list[CtSlice]:
        """Every second one of the other pictures."""
        return self.other[::2]

    @property
    def other_for_refusals(self) -> list[CtSlice]:
        """The other pictures that are not trained on."""
        return self.other[1::2]


@dataclass(slots=True)
class LesionInputs:
    """The slices that were read, and their problems.

    Attributes:
        slices: by use: `--data`, `official test`, `--labelled DIR` and so on.
        problems: one line each; none if a run can begin.
        data: None if a part of it could not be read.
    """

    slices: dict[str, list[CtSlice]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    data: LesionData | None = None

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Add an error to the problems instead of raising it."""
        try:
            yield
        except TrainingError as error:
            self.problems.append(str(error))
        except OSError as error:
            self.problems.append(describe(error))


def read_lesion_inputs(paths: LesionPaths, *, allow_copies: bool = False) -> LesionInputs:
    """Read all sources, and compare each with official test and with the others.

    Args:
        paths: what to read.
        allow_copies: accept slices of two training sources that show the same picture; never copies of test.
    """
    inputs, sources = LesionInputs(), list(_sources(paths))
    with inputs.collecting():
        _check_folders_differ(sources)
    corrections: dict[str, int | None] = {}
    with inputs.collecting():
        corrections = read_corrections(paths.corrections) if paths.corrections else {}
    covid_ct = None
    with inputs.collecting():
        covid_ct = read_covid_ct(paths.data, paths.counts, paths.exclude)
    for source in sources:
        with inputs.collecting():
            inputs.slices[source.use] = source.read(source.folder)
    if covid_ct is not None:
        with inputs.collecting():
            _complete(inputs, paths, covid_ct, corrections)
    with inputs.collecting():
        _check_names_differ(inputs)
    _compare(inputs, allow_copies=allow_copies)
    return inputs


class _Source(NamedTuple):
    use: str
    folder: Path
    read: Callable[[Path], list[CtSlice]]


def _sources(paths: LesionPaths) -> Iterator[_Source]:
    """Yield all sources but COVID-CT; training sources are in the order of training."""
    for folder in paths.labelled:
        yield _Source(f"--labelled {folder}", folder, read_labelled)
    yield _Source("--lesions", paths.lesions, read_lesions)
    yield _Source("--clear", paths.clear, partial(read_images, kind="clear"))
    if paths.unseen:
        yield _Source("--unseen", paths.unseen, partial(read_images, kind="clear"))
    if paths.other:
        yield _Source("--other", paths.other, partial(read_images, kind="other"))


def _complete(inputs: LesionInputs, paths: LesionPaths, covid_ct: CovidCt, corrections: dict[str, int | None]) -> None:
    """Add COVID-CT, and combine all sources if each could be read."""
    train, test = covid_ct.train_and_val(), covid_ct.test
    everyone = Split("all", train.slices + test.slices)
    patients = known_patients(paths.patients, paths.data, everyone)
    papers = group_by_paper(everyone, patients) if patients else tuple(slice_.path for slice_ in everyone.slices)
    count = len(train.slices)
    learned = set(papers[:count])
    # intervals on test resample patients; papers matter for training alone
    first = {
        "--data": from_covid_ct(train, papers[:count], corrections),
        TEST: from_covid_ct(test, (patients or papers)[count:], {}),
    }
    complete = not inputs.problems
    inputs.slices = first | inputs.slices
    if complete:
        not_trained = (TEST, "--unseen", "--other")
        inputs.data = LesionData(
            train=[slice_ for use, slices in inputs.slices.items() if use not in not_trained for slice_ in slices],
            test=first[TEST],
            originals=test,
            patients_are_known=patients is not None,
            known_papers=frozenset(
                slice_.path for slice_, paper in zip(test.slices, papers[count:], strict=True) if paper in learned
            ),
            corrections=corrections,
            other=inputs.slices.get("--other", []),
            unseen=inputs.slices.get("--unseen", []),
        )


def _check_folders_differ(sources: Sequence[_Source]) -> None:
    for first, second in combinations(sources, 2):
        if first.folder.resolve() == second.folder.resolve():
            raise TrainingError(
                f"{second.use}: {second.folder} is the folder of {first.use} too; its slices would count twice"
            )


def _check_names_differ(inputs: LesionInputs) -> None:
    """Check that source and file name identify a slice, which predictions.csv needs."""
    uses: dict[str, str] = {}
    for use, slices in inputs.slices.items():
        for name in {_name(slice_) for slice_ in slices}:
            if uses.setdefault(name, use) != use:
                raise TrainingError(f"{use} and {uses[name]} both have a slice {name}; give one source another name")


def _compare(inputs: LesionInputs, *, allow_copies: bool) -> None:
    """Find slices that show the same picture in two sources. COVID-CT's own splits are compared where they are read."""
    for first, second in combinations(inputs.slices, 2):
        if (first, second) == ("--data", TEST) or (allow_copies and TEST not in (first, second)):
            continue
        one, other = inputs.slices[first], inputs.slices[second]
        copies = find_near_copies(*([slice_.grey[None] for slice_ in slices] for slices in (one, other)))
        if copies:
            pairs = [f"{_name(one[i])} and {_name(other[j])}" for i, j in copies]
            advice = f"delete them from {second}" if first == TEST else "delete one of each, or pass --allow-copies"
            inputs.problems.append(
                f"{first} and {second} show the same pictures: {', '.join(pairs[:5])}"
                f"{f' and {len(pairs) - 5} more' if len(pairs) > 5 else ''}; {advice}"
            )


def _name(slice_: CtSlice) -> str:
    return f"{slice_.source}/{slice_.name}"
