"""References between objects: selectors, ports, addresses, variables, and the names that workers have for each other."""

from collections.abc import Iterator

from tests.k8s.manifests import Object, arguments, environment, named, of_kind, pods, selects, walk


def selectors(objects: list[Object]) -> Iterator[str]:
    """Every selector matches a pod, and every autoscaler and monitor has a target."""
    labels = [pod.labels for pod in pods(objects)]
    for found in of_kind(objects, "Service", "PodDisruptionBudget", "NetworkPolicy"):
        selector = found["spec"].get("podSelector", found["spec"].get("selector"))
        if not any(selects(selector, each) for each in labels):
            # The policies are one component for all stacks, and a stack need not have every client.
            if found["kind"] == "NetworkPolicy" and found["metadata"]["name"] == "serving-clients":
                continue
            yield f"{found['kind']}/{found['metadata']['name']}: selects no pod"
    for pod in pods(of_kind(objects, "Deployment")):
        if not selects(pod.owner["spec"]["selector"], pod.labels):
            yield f"{pod.name}: does not select its own pods"
    for pod in pods(objects):
        for _, key, value in walk(pod.spec):
            if key == "labelSelector" and not any(selects(value, each) for each in labels):
                yield f"{pod.name}: a labelSelector matches no pod"
    for monitor in of_kind(objects, "ServiceMonitor"):
        services = of_kind(objects, "Service")
        if not any(selects(monitor["spec"]["selector"], each["metadata"]["labels"]) for each in services):
            yield f"ServiceMonitor/{monitor['metadata']['name']}: selects no Service"
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        try:
            deployment = named(objects, target["kind"], target["name"])
        except KeyError as missing:
            yield f"HorizontalPodAutoscaler: its target does not exist: {missing}"
            continue
        if "replicas" in deployment["spec"]:
            yield f"HorizontalPodAutoscaler: {target['name']} has replicas, which every apply would reset"


def ports(objects: list[Object]) -> Iterator[str]:
    """Every port that a Service, a policy or a monitor names is opened by a container."""
    for service in of_kind(objects, "Service"):
        for pod in pods(objects):
            if selects(service["spec"]["selector"], pod.labels):
                for port in service["spec"]["ports"]:
                    if port.get("targetPort", port["port"]) not in pod.ports:
                        yield f"Service/{service['metadata']['name']}: no container of {pod.name} opens {port}"
    for policy in of_kind(objects, "NetworkPolicy"):
        for pod in pods(objects):
            opened = [entry["port"] for rule in policy["spec"].get("ingress", []) for entry in rule.get("ports", [])]
            if selects(policy["spec"]["podSelector"], pod.labels):
                for port in set(opened) - set(pod.ports):
                    yield f"NetworkPolicy/{policy['metadata']['name']}: no container of {pod.name} opens {port}"
    for monitor in of_kind(objects, "ServiceMonitor"):
        matching = [
            service
            for service in of_kind(objects, "Service")
            if selects(monitor["spec"]["selector"], service["metadata"]["labels"])
        ]
        names = {port["name"] for service in matching for port in service["spec"]["ports"]}
        for endpoint in monitor["spec"]["endpoints"]:
            if endpoint["port"] not in names:
                yield f"ServiceMonitor/{monitor['metadata']['name']}: no Service has a port {endpoint['port']!r}"


def targets(objects: list[Object]) -> Iterator[str]:
    """Every client of the model server names a Service that has that port, and the network policies admit it."""
    policies = of_kind(objects, "NetworkPolicy")
    for pod in pods(objects):
        for container in pod.containers:
            for argument in arguments(pod, container):
                if not argument.startswith("--target="):
                    continue
                address = argument.removeprefix("--target=")
                host, _, port = address.removeprefix("dns:///").partition(":")
                try:
                    service = named(objects, "Service", host)["spec"]
                except KeyError:
                    yield f"{pod.name}: {argument}: there is no such Service"
                    continue
                if int(port) not in [entry["port"] for entry in service["ports"]]:
                    yield f"{pod.name}: {argument}: the Service has no such port"
                if address.startswith("dns:///") and service.get("clusterIP") != "None":
                    yield f"{pod.name}: {argument}: only a headless Service lists its pods"
                if policies and pod.labels.get("digits-client") != "true":
                    yield f"{pod.name}: {argument}: the network policies reject it"


def variables(objects: list[Object]) -> Iterator[str]:
    """Kubernetes passes on a `$(NAME)` unchanged if NAME is not defined, or only further down."""
    for pod in pods(objects):
        for container in pod.containers:
            for text in (*arguments(pod, container), *environment(pod, container).values()):
                if "$(" in text:
                    yield f"{pod.name}: {container['name']}: {text!r} uses a variable that is not defined before it"


def workers(objects: list[Object]) -> Iterator[str]:
    """In an Indexed Job the numbers agree, and every worker has the name under which the others look for it."""
    for pod in pods(of_kind(objects, "Job")):
        job = pod.owner["spec"]
        if job.get("completionMode") != "Indexed":
            if "successPolicy" in job:
                yield f"{pod.name}: successPolicy needs completionMode Indexed"
            continue
        count = job.get("completions")
        if not count or job.get("parallelism") != count:
            yield f"{pod.name}: completions is {count} and parallelism {job.get('parallelism')}: all workers run at once"
        variables = environment(pod, pod.spec["containers"][0])
        expected = {
            "DIGITS_WORKERS": str(count),
            "DIGITS_JOB": pod.owner["metadata"]["name"],
            "DIGITS_SERVICE": pod.spec.get("subdomain", ""),
        }
        for name, value in expected.items():
            if variables.get(name) != value:
                yield f"{pod.name}: {name} is {variables.get(name)!r}; expected {value!r}"
        port = int(variables.get("DIGITS_WORKER_PORT", 2222))
        if port not in pod.ports:
            yield f"{pod.name}: no container opens the workers' port {port}"
        try:
            service = named(objects, "Service", pod.spec.get("subdomain", ""))["spec"]
        except KeyError as missing:
            yield f"{pod.name}: subdomain names no Service: {missing}"
            continue
        if service.get("clusterIP") != "None" or service.get("publishNotReadyAddresses") is not True:
            yield f"{pod.name}: the workers' Service must be headless and publish pods that are not ready"
        if not selects(service["selector"], pod.labels):
            yield f"{pod.name}: the workers' Service does not select the workers"
        if port not in [entry["port"] for entry in service["ports"]]:
            yield f"{pod.name}: the workers' Service has no port {port}"
