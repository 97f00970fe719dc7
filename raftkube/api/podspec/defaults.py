"""What a pod specification gets where its author said nothing.

Source: pkg/apis/core/v1/defaults.go, and for pods themselves the admission plugins ServiceAccount,
DefaultTolerationSeconds and Priority (`admit_pod`).
"""

from __future__ import annotations

from typing import Any, Final

from raftkube.api.objects import child, default, items, section, setdefault_falsy
from raftkube.api.quantity import canonical, canonicalize

_FILE_MODE: Final = 0o644
_TOKEN_SECONDS: Final = 3600
_TOLERATION_SECONDS: Final = 300
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
CONTAINER_LISTS: Final = ("initContainers", "containers", "ephemeralContainers")
SYSTEM_PRIORITIES: Final = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}

Spec = dict[str, Any]


def default_pod_spec(spec: Spec) -> None:
    """SetDefaults_PodSpec and those of all it holds."""
    setdefault_falsy(spec, "restartPolicy", "Always")
    default(spec, "terminationGracePeriodSeconds", 30)
    setdefault_falsy(spec, "dnsPolicy", "ClusterFirst")
    default(spec, "securityContext", {})
    setdefault_falsy(spec, "schedulerName", "default-scheduler")
    _mirror_service_account(spec)
    for name in CONTAINER_LISTS:
        for container in items(spec, name):
            _default_container(container)
            if spec.get("hostNetwork"):
                _default_host_ports(container)
    for volume in items(spec, "volumes"):
        _default_volume(volume)
    for constraint in items(spec, "topologySpreadConstraints"):
        default(constraint, "nodeAffinityPolicy", "Honor")
        default(constraint, "nodeTaintsPolicy", "Ignore")
    canonicalize(spec.get("overhead"))


def _mirror_service_account(spec: Spec) -> None:
    """serviceAccount is the old name of serviceAccountName; both are always written."""
    name = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if name:
        spec["serviceAccountName"] = spec["serviceAccount"] = name


def _default_container(container: dict[str, Any]) -> None:
    setdefault_falsy(container, "terminationMessagePath", "/dev/termination-log")
    setdefault_falsy(container, "terminationMessagePolicy", "File")
    setdefault_falsy(container, "imagePullPolicy", _pull_policy(container.get("image") or ""))
    resources = child(container, "resources")
    for name in ("limits", "requests"):
        canonicalize(resources.get(name))
    for port in items(container, "ports"):
        setdefault_falsy(port, "protocol", "TCP")
    for env in items(container, "env"):
        _default_env(env)
    for name in _PROBES:
        if container.get(name) is not None:
            _default_probe(container[name])
    for action in section(container, "lifecycle").values():
        _default_http_get(action)


def _default_env(env: dict[str, Any]) -> None:
    source = section(env, "valueFrom")
    if source.get("fieldRef"):
        setdefault_falsy(source["fieldRef"], "apiVersion", "v1")
    if source.get("resourceFieldRef"):
        source["resourceFieldRef"]["divisor"] = canonical(source["resourceFieldRef"].get("divisor") or "0")


def _pull_policy(image: str) -> str:
    """Always for the tag latest, or for neither tag nor digest."""
    name, _, digest = image.rpartition("/")[2].partition("@")
    tag = name.partition(":")[2]
    return "Always" if tag == "latest" or not (tag or digest) else "IfNotPresent"


def _default_probe(probe: dict[str, Any]) -> None:
    setdefault_falsy(probe, "timeoutSeconds", 1)
    setdefault_falsy(probe, "periodSeconds", 10)
    setdefault_falsy(probe, "successThreshold", 1)
    setdefault_falsy(probe, "failureThreshold", 3)
    _default_http_get(probe)
    if isinstance(probe.get("grpc"), dict):
        default(probe["grpc"], "service", "")


def _default_http_get(action: Any) -> None:
    if isinstance(action, dict) and isinstance(action.get("httpGet"), dict):
        setdefault_falsy(action["httpGet"], "path", "/")
        setdefault_falsy(action["httpGet"], "scheme", "HTTP")


def _default_host_ports(container: dict[str, Any]) -> None:
    """In the host's network a container's port is the host's."""
    for port in items(container, "ports"):
        setdefault_falsy(port, "hostPort", port.get("containerPort"))


def _default_volume(volume: dict[str, Any]) -> None:
    if not any(value is not None for name, value in volume.items() if name != "name"):
        volume["emptyDir"] = {}
    for name in ("secret", "configMap", "downwardAPI", "projected"):
        if isinstance(volume.get(name), dict):
            default(volume[name], "defaultMode", _FILE_MODE)
            _default_projections(volume[name])
    if isinstance(volume.get("hostPath"), dict):
        default(volume["hostPath"], "type", "")
    if isinstance(volume.get("emptyDir"), dict) and "sizeLimit" in volume["emptyDir"]:
        volume["emptyDir"]["sizeLimit"] = canonical(volume["emptyDir"]["sizeLimit"])


def _default_projections(volume: dict[str, Any]) -> None:
    downward = items(volume, "items")
    for source in items(volume, "sources"):
        if isinstance(source.get("serviceAccountToken"), dict):
            default(source["serviceAccountToken"], "expirationSeconds", _TOKEN_SECONDS)
        downward = downward + items(section(source, "downwardAPI"), "items")
    for item in downward:
        if isinstance(item.get("fieldRef"), dict):
            setdefault_falsy(item["fieldRef"], "apiVersion", "v1")


def default_pod(pod: dict[str, Any]) -> None:
    """SetDefaults_Pod: what holds for pods and not for templates."""
    spec = child(pod, "spec")
    default_pod_spec(spec)
    default(spec, "enableServiceLinks", True)
    for name in ("initContainers", "containers"):
        for container in items(spec, name):
            _requests_from_limits(container["resources"])


def _requests_from_limits(resources: dict[str, Any]) -> None:
    limits = resources.get("limits")
    if limits:
        requests = child(resources, "requests")
        for name, amount in limits.items():
            requests.setdefault(name, amount)


def admit_pod(spec: Spec) -> None:
    """What upstream's admission plugins, all on by default, add to a new pod."""
    setdefault_falsy(spec, "serviceAccountName", "default")
    _mirror_service_account(spec)
    default(spec, "preemptionPolicy", "PreemptLowerPriority")
    default(spec, "priority", SYSTEM_PRIORITIES.get(spec.get("priorityClassName") or "", 0))
    tolerations = list(items(spec, "tolerations"))
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(_tolerates(toleration, key) for toleration in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute",
                                "tolerationSeconds": _TOLERATION_SECONDS})  # fmt: skip
    spec["tolerations"] = tolerations


def _tolerates(toleration: dict[str, Any], key: str) -> bool:
    return toleration.get("key") in (key, "", None) and toleration.get("effect") in ("NoExecute", "", None)
