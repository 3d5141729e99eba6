"""Archives of any size, on the machines of a Ray cluster. Needs the extra `ray`."""

from covid_ct.archive.run import Progress, predict_archive

__all__ = ["Progress", "predict_archive"]
