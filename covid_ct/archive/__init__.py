"""Archives of any size, on the machines of a Ray cluster. Needs the extra `ray`."""

from covid_ct.archive.run import Summary, predict_archive

__all__ = ["Summary", "predict_archive"]
