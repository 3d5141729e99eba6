"""Errors of the client."""


class ClientError(Exception):
    """Base class of all errors of this package; the message is one line."""


class UsageError(ClientError):
    """The command or an argument is wrong, whatever the files hold; exit status 2."""


class SourceError(ClientError):
    """A file or an image in memory can't be used; others are not concerned.

    Attributes:
        code: stable name, snake_case.
        detail: the reason, and what to do.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class UnreachableError(ClientError):
    """No answer came: the address does not listen, or the connection broke."""


class AnswerError(ClientError):
    """The answer is not from this service; check the address."""


class ProblemError(ClientError):
    """The service answered with a problem (RFC 9457).

    Attributes:
        status: HTTP status.
        code: stable name of the problem, such as `damaged_image`.
        detail: the reason, the place, and what to do.
        request_id: id of the request in the service's log, or None.
    """

    def __init__(self, status: int, code: str, detail: str, request_id: str | None = None) -> None:
        super().__init__(f"{detail} ({code}, {status})")
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id
