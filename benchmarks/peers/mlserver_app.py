"""MLServer, set up like its documentation: a runtime with a custom route for the form that all contenders get."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import cast

from mlserver import MLModel
from mlserver.handlers import custom_handler
from starlette.datastructures import UploadFile
from starlette.requests import Request

from benchmarks.peers.model import Model


class CovidCt(MLModel):  # type: ignore[misc,unused-ignore] # MLServer is in an environment of its own
    """Predicts one slice per request."""

    async def load(self) -> bool:
        """Load the model, once for each worker."""
        self.model = Model()
        return True

    @custom_handler(rest_path="/predict", rest_method="POST")
    async def predict_slice(self, request: Request) -> dict[str, float]:
        """Return the probability for the multipart field `image`."""
        async with request.form() as form:
            data = await cast(UploadFile, form["image"]).read()
        return {"probability": (await asyncio.to_thread(self._predict, data))[0]}

    def _predict(self, data: bytes) -> list[float]:
        return self.model.predict([self.model.prepare(data)])


def write_settings(folder: Path) -> None:
    """Write the two settings files that MLServer reads from its folder.

    A custom route runs in the web server's process, not in MLServer's workers, so that there is no number to set.
    """
    server = {"host": "127.0.0.1", "http_port": int(os.environ["BENCH_PORT"]), "parallel_workers": 0}
    (folder / "settings.json").write_text(json.dumps(server | {"grpc_port": 8701, "metrics_port": 8702}))
    model = {"name": "covid-ct", "implementation": "benchmarks.peers.mlserver_app.CovidCt"}
    (folder / "model-settings.json").write_text(json.dumps(model))


if __name__ == "__main__":
    folder = Path.cwd() / "mlserver"
    folder.mkdir(exist_ok=True)
    write_settings(folder)
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execv(program, [program, "start", str(folder)])  # noqa: S606 - no shell is wanted
