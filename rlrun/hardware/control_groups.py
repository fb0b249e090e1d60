"""Control groups: what Linux leaves of the machine to a container or a job (cgroups(7))."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class ControlGroup(NamedTuple):
    """A control group that this process is in.

    Attributes:
        directory: of its files.
        version_2: whether they are named as in version 2.
    """

    directory: Path
    version_2: bool

    def read(self, name: str) -> int | None:
        """Return a file's number; None if there is none, as in "max"."""
        try:
            return int((self.directory / name).read_text())
        except (OSError, ValueError):
            return None

    def read_entry(self, name: str, key: str) -> int | None:
        """Return the number behind a key in a file of lines "key number"; None if there is none."""
        try:
            lines = (self.directory / name).read_text().splitlines()
            return int(dict(line.split(" ", 1) for line in lines)[key])
        except (OSError, ValueError, KeyError):
            return None


def control_groups(controller: str, root: Path) -> Iterator[ControlGroup]:
    """Find the groups that hold this process to their limits, the innermost first.

    Args:
        controller: of what ("cpu", "memory").
        root: directory that holds ``proc`` and ``sys``; "/" but in tests.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        # "0::/user.slice/job" (version 2) or "4:cpu,cpuacct:/job" (version 1)
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            mount = root / "sys/fs/cgroup" / controller
        else:
            continue
        group = PurePosixPath(path)
        # A group is held to the limits of those around it. In a container the path may be that
        # of the host, of which only the root is to be seen.
        for parent in (group, *group.parents):
            yield ControlGroup(mount / str(parent).lstrip("/"), version_2=not controllers)
