"""The Job's pod template as rendered, run by `podman kube play`: its user, mounts, variables and arguments."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.image.conftest import Engine
from tests.k8s.manifests import arguments, environment, named, pods, render


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed; it renders the manifests")
def test_the_rendered_training_pod_trains_and_publishes(engine: Engine, tmp_path: Path) -> None:
    if "podman" not in engine("version").stdout.lower() + " ".join(engine.command):
        pytest.skip("docker cannot run a pod; podman can")
    job = named(render("local"), "Job", "train")
    template = job["spec"]["template"]
    [pod] = pods([job])
    run, volume = job["metadata"]["name"], engine.new_volume()
    for container in (*template["spec"]["initContainers"], *template["spec"]["containers"]):
        # Podman names local images "localhost/...", and does not expand variables in arguments.
        container["image"] = f"localhost/{engine.image('trainer')}"
        container["imagePullPolicy"] = "Never"
        container["args"] = arguments(pod, container)
        container["env"] = [{"name": name, "value": value} for name, value in environment(pod, container).items()]
    template["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = volume
    metadata = {"name": engine.prefix, "labels": pod.labels}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(manifest))
    try:
        engine("play", "kube", "--network", engine.network, str(tmp_path / "pod.yaml"))
        assert engine.wait(f"{engine.prefix}-train") == 0, engine("logs", f"{engine.prefix}-train").stderr
        result = json.loads(engine.read(volume, f"/artifacts/runs/{run}/result.json"))
        assert result["exit_code"] == 0
    finally:
        engine("play", "kube", "--down", str(tmp_path / "pod.yaml"), check=False)
