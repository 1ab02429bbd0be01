"""The alert rules and the dashboard. Prometheus' own `promtool` parses both and evaluates the rules on given series."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import serving.local_server.metrics as metrics
from serving.local_server.config import ServerConfig
from tests.k8s.manifests import K8S, named, of_kind, render

ALERTS = Path(__file__).with_name("alerts_test.yaml")
KNOWN = {value for name, value in vars(metrics).items() if isinstance(value, str) and value.startswith(":tensorflow:")}

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool is not installed (Debian: prometheus)"
)


def expressions() -> list[str]:
    """Every expression of the rules and of the dashboard, with Grafana's variables filled in."""
    rules = named(render("base+prometheus"), "PrometheusRule", "digits")["spec"]["groups"]
    dashboard = json.loads((K8S / "components" / "prometheus" / "dashboard.json").read_text())
    found = [rule["expr"] for group in rules for rule in group["rules"]]
    found += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [text.replace("$__rate_interval", "1m").replace("$namespace", "digits") for text in found]


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_alerts_fire_on_their_condition_and_not_otherwise(tmp_path: Path) -> None:
    rules = named(render("base+prometheus"), "PrometheusRule", "digits")["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    shutil.copy(ALERTS, tmp_path)
    promtool("check", "rules", tmp_path / "rules.yaml")
    promtool("test", "rules", tmp_path / ALERTS.name)


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    fired = {
        check["alertname"]
        for test in yaml.safe_load(ALERTS.read_text())["tests"]
        for check in test["alert_rule_test"]
        if check["exp_alerts"]
    }
    rules = named(render("base+prometheus"), "PrometheusRule", "digits")["spec"]["groups"]
    assert fired == {rule["alert"] for group in rules for rule in group["rules"]}


@needs_promtool
def test_every_expression_is_promql(tmp_path: Path) -> None:
    rules = [{"record": f"expression:{number}", "expr": text} for number, text in enumerate(expressions())]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yaml")


def test_every_queried_metric_exists_in_the_server() -> None:
    asked = set(re.findall(r":tensorflow:[\w:]+", " ".join(expressions())))
    assert {name.removesuffix("_bucket") for name in asked} <= KNOWN


def test_grafana_finds_the_dashboard() -> None:
    [config] = [found for found in of_kind(render("base+prometheus"), "ConfigMap") if "dashboard.json" in found["data"]]
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["dashboard.json"])["uid"] == "digits"


def test_an_alert_says_how_often_the_server_tries_to_load_a_version() -> None:
    """TensorFlow Serving's defaults, which are the local server's too; no argument of the manifests changes them."""
    attempts = 1 + ServerConfig.max_load_retries
    minutes = ServerConfig.max_load_retries * ServerConfig.load_retry_interval_seconds / 60
    rules = (K8S / "components" / "prometheus" / "rules.yaml").read_text()
    assert (attempts, minutes) == (6, 5.0)
    assert "tries six times in five minutes" in rules
    [server] = named(render("base"), "Deployment", "serving")["spec"]["template"]["spec"]["containers"]
    assert not [argument for argument in server["args"] if "retr" in argument]
