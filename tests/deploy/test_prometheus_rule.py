"""The PrometheusRule of the overlay `monitoring` is made from the rules of the compose file's Prometheus."""

import yaml

from deploy.kubernetes.prometheus_rule import MANIFEST, RULES, prometheus_rule


def test_the_committed_rule_is_what_the_script_makes() -> None:
    assert MANIFEST.read_text() == prometheus_rule(RULES.read_text()), "run python deploy/kubernetes/prometheus_rule.py"


def test_the_rule_has_the_groups_of_the_rules_file_and_nothing_else() -> None:
    assert yaml.safe_load(MANIFEST.read_text())["spec"] == yaml.safe_load(RULES.read_text())
