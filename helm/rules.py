"""The house rules for what the chart renders: each takes all manifests of a release and yields what breaks it.

`DAMAGES` breaks each rule once, on purpose.
"""

SERVING = ("Deployment", "StatefulSet")


def pods(manifests):
    """(kind, name, annotations of the object, pod spec) of everything that starts pods."""
    for manifest in manifests:
        if manifest["kind"] in (*SERVING, "Job"):
            metadata = manifest["metadata"]
            yield manifest["kind"], metadata["name"], metadata.get("annotations", {}), manifest["spec"]["template"]["spec"]


def containers(manifests):
    for kind, name, _, spec in pods(manifests):
        for container in spec.get("initContainers", []) + spec["containers"]:
            yield kind, f"{name}/{container['name']}", spec, container


def jobs_need_nothing_of_the_chart(manifests):
    """jobs need nothing that the chart brings"""
    own = {(m["kind"], m["metadata"]["name"]) for m in manifests}
    for kind, name, _, spec in pods(manifests):
        if kind != "Job":
            continue
        if spec.get("serviceAccountName", "default") != "default":
            yield f"{name}: names the ServiceAccount {spec['serviceAccountName']}"
        if spec.get("volumes"):
            yield f"{name}: mounts volumes"
        for container in spec["containers"]:
            for variable in container.get("env", []):
                secret = variable.get("valueFrom", {}).get("secretKeyRef", {}).get("name")
                if ("Secret", secret) in own or "configMapKeyRef" in variable.get("valueFrom", {}):
                    yield f"{name}: {variable['name']} comes from the chart"


def jobs_end(manifests):
    """jobs have a deadline, and hooks replace the run before"""
    for manifest in manifests:
        if manifest["kind"] != "Job":
            continue
        name, annotations = manifest["metadata"]["name"], manifest["metadata"].get("annotations", {})
        if not manifest["spec"].get("activeDeadlineSeconds"):
            yield f"{name}: no activeDeadlineSeconds"
        if "helm.sh/hook" in annotations and annotations.get("helm.sh/hook-delete-policy") != "before-hook-creation":
            yield f"{name}: a hook that is not deleted before its next run"


def no_api_access(manifests):
    """no pod gets a token of the Kubernetes API or the namespace's service variables"""
    for _, name, _, spec in pods(manifests):
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{name}: gets a token"
        # MARQUEE_GATEWAY_SERVICE_HOST would be read as a setting.
        if spec.get("enableServiceLinks") is not False:
            yield f"{name}: gets service variables"


def locked_down(manifests):
    """every container is non-root, read-only and without capabilities"""
    for _, name, spec, container in containers(manifests):
        pod, own = spec.get("securityContext", {}), container.get("securityContext", {})
        if not (pod.get("runAsNonRoot") is True and pod.get("runAsUser", 0) > 0):
            yield f"{name}: may run as root"
        if pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name}: no seccomp profile"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{name}: writable root file system"
        if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities", {}).get("drop") != ["ALL"]:
            yield f"{name}: keeps privileges"


def bounded(manifests):
    """every container states what it needs and a memory limit"""
    for _, name, _, container in containers(manifests):
        resources = container.get("resources", {})
        if not {"cpu", "memory"} <= resources.get("requests", {}).keys() or "memory" not in resources.get("limits", {}):
            yield f"{name}: {resources}"


def probed(manifests):
    """every serving container has its probes on the operations port and a pause before it stops"""
    for kind, name, spec, container in containers(manifests):
        if kind not in SERVING:
            continue
        wanted = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
        for probe, path in wanted.items():
            get = container.get(probe, {}).get("httpGet", {})
            if (get.get("path"), get.get("port")) != (path, "ops"):
                yield f"{name}: {probe} is not {path} on ops"
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if not 0 < pause <= spec.get("terminationGracePeriodSeconds", 30) - 25:
            yield f"{name}: sleeps {pause} s of its grace of {spec.get('terminationGracePeriodSeconds')} s"


def disruption_is_one(manifests):
    """every serving workload has a disruption budget of one, by its own selector"""
    budgets = [m["spec"] for m in manifests if m["kind"] == "PodDisruptionBudget"]
    for manifest in manifests:
        if manifest["kind"] in SERVING:
            own = [b for b in budgets if b["selector"] == manifest["spec"]["selector"]]
            if not own or any(b.get("maxUnavailable") != 1 for b in own):
                yield f"{manifest['metadata']['name']}: {own}"


def voters_start_together(manifests):
    """raft voters start in parallel, are replaced by hand, and find each other before they are ready"""
    for manifest in manifests:
        if manifest["kind"] != "StatefulSet":
            continue
        spec = manifest["spec"]
        if spec.get("podManagementPolicy") != "Parallel" or spec.get("updateStrategy", {}).get("type") != "OnDelete":
            yield f"{manifest['metadata']['name']}: ordered or replaced by itself"
        services = [m for m in manifests if m["kind"] == "Service" and m["metadata"]["name"] == spec["serviceName"]]
        for service in services or [{"spec": {}}]:
            if service["spec"].get("clusterIP") != "None" or not service["spec"].get("publishNotReadyAddresses"):
                yield f"{manifest['metadata']['name']}: its Service hides voters that are not ready"


def operations_stay_inside(manifests):
    """the operations port is only on a headless Service"""
    for manifest in manifests:
        if manifest["kind"] == "Service" and manifest["spec"].get("clusterIP") != "None":
            if any(port["targetPort"] == "ops" for port in manifest["spec"]["ports"]):
                yield manifest["metadata"]["name"]


def selectors_find_pods(manifests):
    """every Service, budget and policy selects pods of the release"""
    labels = [m["spec"]["template"]["metadata"]["labels"] for m in manifests if m["kind"] in SERVING]
    for manifest in manifests:
        spec = manifest.get("spec", {})
        selector = {
            "Service": lambda: dict(spec["selector"]),
            "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda: spec["podSelector"]["matchLabels"],
        }.get(manifest["kind"], dict)()
        # Set by the StatefulSet's controller.
        selector.pop("statefulset.kubernetes.io/pod-name", None)
        if not any(selector.items() <= pod.items() for pod in labels):
            yield f"{manifest['kind']} {manifest['metadata']['name']} selects nothing"


RULES = [
    jobs_need_nothing_of_the_chart,
    jobs_end,
    no_api_access,
    locked_down,
    bounded,
    probed,
    disruption_is_one,
    voters_start_together,
    operations_stay_inside,
    selectors_find_pods,
]


def first(manifests, kind):
    return next(m for m in manifests if m["kind"] == kind)


def pod(manifests, kind):
    return first(manifests, kind)["spec"]["template"]["spec"]


def job_account(manifests):
    """a hook that names the chart's ServiceAccount"""
    pod(manifests, "Job")["serviceAccountName"] = first(manifests, "ServiceAccount")["metadata"]["name"]


def endless_job(manifests):
    """a job without a deadline"""
    del first(manifests, "Job")["spec"]["activeDeadlineSeconds"]


def service_links(manifests):
    """service variables in a pod"""
    del pod(manifests, "Deployment")["enableServiceLinks"]


def root(manifests):
    """a pod that may run as root"""
    del pod(manifests, "StatefulSet")["securityContext"]["runAsNonRoot"]


def writable(manifests):
    """a writable root file system"""
    pod(manifests, "Job")["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False


def unbounded(manifests):
    """a container without limits"""
    del pod(manifests, "Deployment")["containers"][0]["resources"]["limits"]


def unready(manifests):
    """a missing readiness probe"""
    del pod(manifests, "Deployment")["containers"][0]["readinessProbe"]


def no_budget(manifests):
    """a missing disruption budget"""
    manifests.remove(first(manifests, "PodDisruptionBudget"))


def ordered(manifests):
    """voters that start in order"""
    first(manifests, "StatefulSet")["spec"]["podManagementPolicy"] = "OrderedReady"


def open_operations(manifests):
    """a public operations port"""
    service = next(m for m in manifests if m["kind"] == "Service" and m["spec"].get("clusterIP") != "None")
    service["spec"]["ports"].append({"name": "ops", "port": 9090, "targetPort": "ops"})


def blind_service(manifests):
    """a Service that selects nothing"""
    first(manifests, "Service")["spec"]["selector"]["app.kubernetes.io/component"] = "nobody"


DAMAGES = [
    (jobs_need_nothing_of_the_chart, job_account),
    (jobs_end, endless_job),
    (no_api_access, service_links),
    (locked_down, root),
    (locked_down, writable),
    (bounded, unbounded),
    (probed, unready),
    (disruption_is_one, no_budget),
    (voters_start_together, ordered),
    (operations_stay_inside, open_operations),
    (selectors_find_pods, blind_service),
]
