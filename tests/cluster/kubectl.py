"""A cluster as `kubectl` reaches it: apply manifests, read objects, set pod statuses, forward ports."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.k8s.manifests import Object
from tests.waiting import wait_until

NAMESPACE = "digits"

OF_JOB = "batch.kubernetes.io/job-name"
INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True)
class Cluster:
    """One cluster, in the namespace of the manifests."""

    context: str

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 120, check: bool = True) -> str:
        """Run kubectl and return what it prints.

        Raises:
            AssertionError: kubectl fails, and `check` is set; the message has its output.
        """
        command = ["kubectl", f"--context={self.context}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, (
            f"kubectl {' '.join(arguments)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
        return done.stdout

    def apply(self, manifests: str, *flags: str) -> list[str]:
        """Apply rendered manifests, where any warning is an error; return the lines of kubectl's report."""
        return self("apply", "--warnings-as-errors", *flags, "--filename=-", stdin=manifests).splitlines()

    def get(self, kind: str, name: str) -> Object:
        return json.loads(self("get", kind, name, f"--namespace={NAMESPACE}", "--output=json"))

    def objects(self, kind: str, *flags: str) -> list[Object]:
        return json.loads(self("get", kind, *flags, "--output=json"))["items"]

    def exists(self, kind: str, name: str, *flags: str) -> bool:
        return bool(self("get", kind, name, "--ignore-not-found", "--output=name", *flags).strip())

    def nodes(self) -> list[str]:
        """The nodes that run pods: ready, and not tainted."""
        return [
            node["metadata"]["name"]
            for node in self.objects("nodes")
            if condition(node, "Ready") and not node["spec"].get("taints")
        ]

    def pods(self, job: str) -> list[Object]:
        """The pods of a Job, in the order of their creation."""
        found = self.objects("pods", f"--namespace={NAMESPACE}", f"--selector={OF_JOB}={job}")
        return sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def delete_job(self, name: str) -> None:
        """Delete a Job, its pods first."""
        self("delete", "job", name, f"--namespace={NAMESPACE}", "--cascade=foreground", "--ignore-not-found")

    def end_pod(self, pod: Object, exit_code: int, *, container: str = "train", evicted: bool = False) -> None:
        """Set the status that a node agent reports when a container ends; for clusters without nodes."""
        ended = {
            "name": container, "image": "image", "imageID": "", "ready": False, "restartCount": 0,
            "state": {"terminated": {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed"}},
        }  # fmt: skip
        field = "containerStatuses" if container == "train" else "initContainerStatuses"
        status: dict[str, Any] = {"phase": "Failed" if exit_code else "Succeeded", field: [ended]}
        if evicted:
            status["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
        self(
            "patch", "pod", pod["metadata"]["name"], f"--namespace={NAMESPACE}", "--subresource=status",
            "--type=merge", f"--patch={json.dumps({'status': status})}",
        )  # fmt: skip

    def wait_for_job(self, name: str, outcome: str, seconds: float) -> Object:
        """Wait until a Job is Complete or Failed; return that condition.

        Raises:
            AssertionError: it has the other outcome, or none in time.
        """
        ends = ("Complete", "Failed")
        wait_until(lambda: any(condition(self.get("job", name), end) for end in ends), seconds, pause_seconds=1)
        job = self.get("job", name)
        if not (found := condition(job, outcome)):
            log = self("logs", f"job/{name}", f"--namespace={NAMESPACE}", "--all-containers", "--tail=30", check=False)
            raise AssertionError(f"{job['status']}\n{log}")
        return found

    @contextmanager
    def port_forward(self, resource: str, port: int) -> Iterator[int]:
        """Forward a port of a Service or Deployment while the block runs; yield the port on this machine."""
        command = [
            "kubectl",
            f"--context={self.context}",
            f"--namespace={NAMESPACE}",
            "port-forward",
            resource,
            f":{port}",
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            line = process.stdout.readline()  # type: ignore[union-attr]
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            assert found, f"kubectl port-forward {resource} {port}: {line!r}"
            yield int(found[1])
        finally:
            process.terminate()
            process.wait(10)


def condition(found: Object, kind: str) -> Object:
    """The condition of that type if it holds; empty if not."""
    conditions = found.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind and each["status"] == "True"), {})
