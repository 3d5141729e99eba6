"""`python deploy/kubernetes/prometheus_rule.py`: write the overlay's PrometheusRule from Prometheus' rules file."""

from pathlib import Path
from textwrap import indent
from typing import Final

_HERE: Final = Path(__file__).parent
RULES: Final = _HERE.parents[1] / "docker" / "prometheus" / "rules.yml"
MANIFEST: Final = _HERE / "overlays" / "monitoring" / "prometheusrule.yaml"

_HEAD: Final = """\
# Made by deploy/kubernetes/prometheus_rule.py from docker/prometheus/rules.yml: change that file.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: covid-ct
  labels: {app.kubernetes.io/name: covid-ct} # your Prometheus may select rules by another label
spec:
"""


def prometheus_rule(rules: str) -> str:
    """Return the manifest: its `spec` has the form of a rules file."""
    return _HEAD + indent(rules, "  ")


if __name__ == "__main__":
    MANIFEST.write_text(prometheus_rule(RULES.read_text()))
