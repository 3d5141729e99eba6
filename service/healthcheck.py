"""`python -m service.healthcheck`: exit status 0 if the service on this machine is ready, else 1; needs no curl."""

import os
import sys
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Final

_SECONDS: Final = 4.0


def main() -> int:
    """Ask the service on the port of COVIDCT_PORT."""
    connection = HTTPConnection("127.0.0.1", int(os.environ.get("COVIDCT_PORT") or 8000), timeout=_SECONDS)
    with closing(connection):
        try:
            connection.request("GET", "/health/ready", headers={"Host": _host()})
            return int(connection.getresponse().status != 200)
        except (OSError, HTTPException):
            return 1


def _host() -> str:
    """Return a Host name that the service accepts."""
    return os.environ.get("COVIDCT_ALLOWED_HOSTS", "").split(",")[0].strip() or "localhost"


if __name__ == "__main__":
    sys.exit(main())
