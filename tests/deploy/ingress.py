"""nginx with the limits of the overlay `ingress`, in front of the pods that are ready."""

import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from tests.deploy.kustomize import only
from tests.deploy.pods import Pod, Readiness
from tests.support.processes.server import free_port

_PREFIX = "nginx.ingress.kubernetes.io/"
_CONFIGURATION = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 2;
events {{ worker_connections 256; }}
http {{
    log_format answers escape=json
        '{{"at": $msec, "seconds": $request_time, "status": $status, "pod": "$upstream_addr"}}';
    access_log {folder}/access.log answers;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream pods {{ {servers} keepalive 32; keepalive_timeout 4s; }}
    server {{
        listen 127.0.0.1:{port};
        keepalive_timeout 0;
        client_max_body_size {proxy-body-size};
        location / {{
            proxy_pass http://pods;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_connect_timeout {proxy-connect-timeout}s;
            proxy_send_timeout {proxy-send-timeout}s;
            proxy_read_timeout {proxy-read-timeout}s;
            proxy_request_buffering {proxy-request-buffering};
            proxy_next_upstream {proxy-next-upstream};
        }}
    }}
}}
"""


class Ingress(threading.Thread):
    """A running nginx whose list of pods follows their readiness, like a controller's follows the endpoints."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.port = free_port()
        self._folder = folder
        self._stopped = threading.Event()
        self._watched: list[Readiness] = []
        self._served: list[int] = []
        annotations = only("ingress", "Ingress")["metadata"]["annotations"]
        self._limits = {
            name.removeprefix(_PREFIX): value for name, value in annotations.items() if name.startswith(_PREFIX)
        }
        self._configure([])
        self._command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        self._nginx = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        self.start()

    def add(self, pod: Pod) -> None:
        """Serve a pod whenever it is ready."""
        self._watched.append(pod.watch(self._stopped))

    def serves(self, pod: Pod) -> bool:
        """Whether requests go to a pod."""
        return pod.port in self._served

    def run(self) -> None:
        """Reload nginx at each change."""
        while not self._stopped.wait(0.2):
            ready = [each.pod.port for each in self._watched if each.ready]
            if ready != self._served:
                self._configure(ready)
                subprocess.run([*self._command, "-s", "reload"], check=True, capture_output=True)
                time.sleep(0.2)  # for its new workers
                self._served = ready

    def answers(self) -> list[dict[str, Any]]:
        """Return its log: time, duration, status and pod of each request."""
        return [json.loads(line) for line in (self._folder / "access.log").read_text().splitlines()]

    def close(self) -> None:
        """End nginx and the watches."""
        self._stopped.set()
        self.join(10)
        self._nginx.terminate()
        self._nginx.wait(20)

    def _configure(self, ports: list[int]) -> None:
        servers = " ".join(f"server 127.0.0.1:{port};" for port in ports or [9])  # 9: nobody is there
        text = _CONFIGURATION.format(folder=self._folder, port=self.port, servers=servers, **self._limits)
        (self._folder / "nginx.conf").write_text(text)
