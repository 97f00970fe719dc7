"""Where the process runtime keeps what must outlive the kubelet.

<root>/pods/<uid>/work/                          the directory in which the pod's containers start
<root>/pods/<uid>/containers/<name>/<attempt>/   record.json run exit out err events ctl
<root>/logs/<namespace>_<pod>_<uid>/<name>/<attempt>.log   as upstream lays out /var/log/pods
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from raftkube.files import write_file
from raftkube.kubelet.runtimes.base import ContainerConfig, PodRef

_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Record(NamedTuple):
    """What stands in record.json."""

    id: str
    pod: PodRef
    name: str
    attempt: int
    image: str
    image_id: str
    started_at: float
    cwd: str
    reason: str = ""
    message: str = ""


class Layout:
    """The paths under one root directory."""

    def __init__(self, root: str) -> None:
        self.root = Path(root).resolve()

    def pod(self, uid: str) -> Path:
        if not _SAFE_NAME.fullmatch(uid):
            raise ValueError(f"pod uid {uid!r} is not a name for a directory")
        return self.root / "pods" / uid

    def work(self, uid: str) -> Path:
        return self.pod(uid) / "work"

    def attempt(self, uid: str, name: str, attempt: int) -> Path:
        return self.pod(uid) / "containers" / name / str(attempt)

    def logs(self, pod: PodRef) -> Path:
        return self.root / "logs" / f"{pod.namespace}_{pod.name}_{pod.uid}"

    def log(self, pod: PodRef, name: str, attempt: int) -> str:
        return str(self.logs(pod) / name / f"{attempt}.log")

    def make_attempt(self, config: ContainerConfig) -> Path:
        """An empty directory for this attempt, and the pod's working directory."""
        directory = self.attempt(config.pod.uid, config.name, config.attempt)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700, parents=True)
        self.work(config.pod.uid).mkdir(mode=0o700, exist_ok=True)
        return directory

    def remove_attempt(self, pod: PodRef, name: str, attempt: int) -> None:
        """The directory and all log files of one attempt."""
        shutil.rmtree(self.attempt(pod.uid, name, attempt), ignore_errors=True)
        path = Path(self.log(pod, name, attempt))
        for old in path.parent.glob(f"{attempt}.log*"):
            old.unlink(missing_ok=True)

    def remove_pod(self, pod: PodRef) -> None:
        shutil.rmtree(self.pod(pod.uid), ignore_errors=True)
        shutil.rmtree(self.logs(pod), ignore_errors=True)

    def write_record(self, directory: Path, record: Record) -> None:
        fields = record._asdict() | {"pod": record.pod._asdict()}
        write_file(directory / "record.json", orjson.dumps(fields))

    def records(self) -> Iterator[tuple[Path, Record]]:
        """Every attempt that was begun; what cannot be read was not."""
        for path in sorted(self.root.glob("pods/*/containers/*/*/record.json")):
            record = _read_record(path)
            if record is not None:
                yield path.parent, record


def _read_record(path: Path) -> Record | None:
    try:
        fields: dict[str, Any] = orjson.loads(path.read_bytes())
        return Record(**(fields | {"pod": PodRef(**fields["pod"])}))
    except (OSError, ValueError, KeyError, TypeError):
        return None
