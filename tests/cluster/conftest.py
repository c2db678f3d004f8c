"""The fixture `cluster`: the test cluster, up for the session; the one who brought it up takes it down, unless somebody else uses it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

import pytest

from cluster.testbed import Bed, DownError, until


@pytest.fixture
def idle(cluster: Bed) -> None:
    """A test begins with an empty queue, all nodes up, and no fault that a killed session left behind."""
    for left in (cluster.folder / "faults").iterdir():
        left.unlink()
    cluster.cancel_all()
    until(lambda: set(cluster.slurm("sinfo", "-h", "-N", "-p", "batch", "-o", "%t").split()) == {"idle"}, 30)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Bed]:
    """The test cluster of BED (without it, .cluster). BED_KEEP=1 leaves it up, so that the next session starts in 0.2 s.

    Of several pytest workers each has its own, the first one that one; the others' are removed at the end.
    """
    bed, worker = Bed(), os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    if worker != "gw0":
        bed = Bed(bed.folder.with_name(f"{bed.folder.name}-{worker}"))
    bed.folder.mkdir(exist_ok=True)
    ours = bed.folder / ".brought-up-by-tests"
    with (bed.folder / ".used-by-tests").open("w") as used:
        fcntl.flock(used, fcntl.LOCK_SH)
        was_up = (bed.folder / "run/up").exists()
        try:
            bed.up()
        except DownError as reason:
            pytest.fail(str(reason), pytrace=False)
        if not was_up:
            ours.touch()  # up.sh, called by a person, removes it: then the cluster stays
        yield bed
        try:
            fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another session still uses it
        if ours.exists() and not os.environ.get("BED_KEEP"):
            ours.unlink()
            bed.down(purge=worker != "gw0")
