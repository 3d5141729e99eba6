"""Studies with the model in this process: files to series, slices to predictions."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from covid_ct.errors import SourceError
from covid_ct.files.sources import Source, SourceFile, members_of, read_sources
from service.api_study import StudyProgress
from service.errors import ServiceError
from service.imaging.cage.blocking import BlockingCage
from service.imaging.series.files import ReadOptions, StudySlice
from service.model.study import NotASlice, SeriesSlice, Study
from service.model.study_plan import plan_study, thin_mm

if TYPE_CHECKING:
    from service.model.predictor import Predictor


def read_study(
    sources: Iterable[Source], decoders: BlockingCage, options: ReadOptions, every_mm: float | None = None
) -> Study:
    """Read the files of a study one at a time, plan its series, and decode the slices that the network reads.

    Args:
        sources: DICOM, NIfTI, pictures, and zips of them.
        decoders: read the files.
        options: for reading.
        every_mm: as in `plan_study`.

    Raises:
        SourceError: a file can't be read.
        UnusableImageError: no file has a slice.
    """
    slices: list[SeriesSlice] = []
    others: list[NotASlice] = []
    origins: dict[int, Source] = {}  # of files that can be read again, by index
    read = read_sources(chain.from_iterable(map(members_of, sources)))
    for index, (source, file) in enumerate((source, file) for source, files in read for file in files):
        reading = options
        if source.member is not None or file.name == source.path:
            origins[index] = source
            reading = replace(options, thin_mm=thin_mm(every_mm))
        for image in _slices(file, decoders, reading):
            if isinstance(image, StudySlice):
                slices.append(SeriesSlice(index, file.name, image))
            else:
                others.append(NotASlice(index, file.name, image))
    study = plan_study(slices, others, every_mm)
    _decode(study, origins, decoders, options)
    return study


def _decode(study: Study, origins: Mapping[int, Source], decoders: BlockingCage, options: ReadOptions) -> None:
    """Decode the slices to read of which only the place is known."""
    to_decode = study.to_decode()
    sources = [origins[file.index] for file in to_decode]
    for (_, contents), file in zip(read_sources(sources), to_decode, strict=True):
        for content in contents:
            file.set_decoded(list(_slices(content, decoders, file.options(options))))


def _slices(file: SourceFile, decoders: BlockingCage, options: ReadOptions) -> Iterator[StudySlice | ServiceError]:
    """Yield the slices of a file; the reason for which there are no more is the last item."""
    if isinstance(file.data, SourceError):
        raise SourceError(file.data.code, f"{file.name}: {file.data.detail}")
    if isinstance(file.data, ServiceError):
        yield file.data
        return
    try:
        yield from decoders.study_slices(file.data, file.name, options)
    except ServiceError as error:
        yield error.without_frames()


def predict_study(
    study: Study, predictor: "Predictor", report: Callable[[StudyProgress], object] = lambda _: None
) -> None:
    """Predict for the wanted slices of a study, one after the other.

    Raises:
        ServiceError: no slice has a prediction; `UnusableImageError` if none shows lungs.
    """
    from service.model.assess import checked

    wanted, began = list(study.to_read()), time.monotonic()
    for done, (series, index) in enumerate(wanted):
        seconds = (time.monotonic() - began) / done * (len(wanted) - done) if done else None
        report(StudyProgress(done=done, of=len(wanted), seconds_left=seconds))
        slice_, look_first = series.slices[index], series.is_beyond_lungs(index)
        network_input = slice_.take_input()
        (prediction,) = predictor.submit(
            lambda: predictor.predict_now([network_input], 1, [look_first])  # noqa: B023 - runs at once
        ).result()
        if isinstance(prediction, Exception) and not isinstance(prediction, ServiceError):
            raise prediction
        slice_.answer = prediction if isinstance(prediction, ServiceError) else checked(prediction, predictor.card)
    study.check_lungs()
