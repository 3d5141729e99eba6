"""`covid-ct predict --engine ray`: options, progress and exit status."""

from argparse import Namespace

from covid_ct.archive.run import predict_archive
from covid_ct.engine_options import check_engine_options
from covid_ct.errors import UsageError
from covid_ct.models import find_models
from covid_ct.predict import end_run, show_progress
from service.imaging.window import LUNG


def _check(options: Namespace) -> None:
    """Refuse options that this engine does not have.

    Raises:
        UsageError: no folder for the output, or an option of another engine.
    """
    check_engine_options(options)
    if options.url:
        raise UsageError("--engine ray runs the model itself: leave out --url")
    if options.output is None:
        raise UsageError("--engine ray needs --output FOLDER")
    if options.format not in (None, "csv", "parquet"):
        raise UsageError("--engine ray writes --format csv or parquet")
    if "-" in options.paths:
        raise UsageError("--engine ray reads no standard input; name files, folders or URIs")


def run(options: Namespace) -> int:
    """Predict for an archive; return 0 if nothing failed, 1 if something did or there is no slice.

    Raises:
        ClientError: see `predict_archive`.
    """
    _check(options)
    counts = predict_archive(
        options.paths,
        options.output,
        models=find_models(options.models),
        form=options.format or "csv",
        window=options.window or LUNG,
        device=options.device,
        operating_point=options.operating_point,
        by_series=options.by_series,
        address=options.ray_address,
        show=lambda progress: show_progress(progress.line()),
    )
    return end_run(counts, options.paths)
