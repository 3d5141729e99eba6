"""What can go wrong between a client and the service."""


class ClientError(Exception):
    """Any failure of this package; the message is one line."""


class UnreachableError(ClientError):
    """No answer came: nobody listens there, or the connection broke."""


class AnswerError(ClientError):
    """What came is no answer of this service; is the address right?"""


class ProblemError(ClientError):
    """The service answered with a problem (RFC 9457).

    Attributes:
        status: HTTP status.
        code: stable name of the problem, such as `damaged_image`.
        detail: what was wrong, where, and what to do.
        request_id: under which the service's log has it, or None.
    """

    def __init__(self, status: int, code: str, detail: str, request_id: str | None = None) -> None:
        super().__init__(f"{detail} ({code}, {status})")
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id
