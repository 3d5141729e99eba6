"""POST /predict/study: one answer for a whole CT series, or for all series of a study."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from service import DISCLAIMER
from service.api_study import StudyAnswer, StudyProgress
from service.errors import ClientGoneError, DeadlineError, ErrorCode, ServiceError
from service.imaging.decode import DecodeLimits
from service.imaging.series.files import ReadOptions
from service.inference.served_model import ServedModel
from service.inference.service_state import ServiceState
from service.inference.study import Progress, StudyReader, open_study, read_study
from service.model.card import OperatingPoint
from service.web.content_negotiation import choose_media_type
from service.web.dependencies import PointName, ReadyState
from service.web.disconnect import cancel_on_disconnect
from service.web.openapi.document import PREDICTIONS
from service.web.openapi.problem_examples import documented
from service.web.problems import problem_body
from service.web.request_id import request_id_of
from service.web.study_files import study_zip
from service.web.study_upload import OPENAPI_BODY_OF_STUDY, files_of

PATH: Final = "/predict/study"

_JSON: Final = "application/json"
_LINES: Final = "application/x-ndjson"
_ZIP: Final = "application/zip"

_Uids = Annotated[
    bool,
    Query(description="give UIDs and names of files in the answer; by default an answer has nothing of the patient"),
]
_EveryMm = Annotated[
    float | None,
    Query(
        ge=0,
        le=100,
        description="least distance in mm between slices that are read; 0 reads every slice; by default 5 in series "
        "with less than 2.5 mm between their slices, and every slice in others",
    ),
]

router = APIRouter(tags=[PREDICTIONS])
_log = logging.getLogger("covidct.study")
