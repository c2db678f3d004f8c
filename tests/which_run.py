"""Which tests run, in which order, and on which worker: hooks that conftest.py hands to pytest.

pytest                        all that can run here, one after another
pytest -m "not slow"          what needs no server, no cluster and no sleep: `make check`
pytest --instants=all         a kind of kill at every instant there is, instead of at three that a seed chooses: `make test-faults`
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

from checkout import ROOT

T = TypeVar("T")
CLUSTER, BENCHMARKS, DOCKER = ROOT / "tests" / "cluster", ROOT / "tests" / "benchmarks", ROOT / "tests" / "test_docker.py"
# Files on the test cluster by the worker that runs them, each on a cluster of its own, so that all take about as long: five minutes.
# They wait most of that time: for Slurm, for a walltime, for a server. Two cores carry four workers.
CLUSTERS = [
    ("test_images.py", "test_images_run.py", "test_export.py"),
    ("test_faults_submit.py", "test_submit.py", "test_cluster.py"),
    ("test_faults_watch.py", "test_watch.py", "test_models.py"),
]
INSTANTS = 3
LIMIT = 2.0  # seconds: a test that takes longer is to be marked as slow
NOT_RUN = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options for tests that kill something at one of many instants."""
    group = parser.getgroup("instants")
    group.addoption("--instants", choices=["some", "all"], default="some", help=f"kill at {INSTANTS} instants a kind, or at all")
    group.addoption("--instants-seed", type=int, help="take the instants that this seed chooses (a new one each time)")


def pytest_configure(config: pytest.Config) -> None:
    """One seed for all workers, and no signal that is ignored in what tests start."""
    if config.option.instants_seed is None:
        given = getattr(config, "workerinput", {})  # in a worker: what pytest_configure_node says
        config.option.instants_seed = given.get("instants_seed", random.SystemRandom().randrange(10**6))
    # What a shell starts in the background ignores SIGINT, what nohup starts SIGHUP, and so would each program under test. A handler is
    # not inherited as "ignore" is.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_configure_node(node: WorkerController) -> None:
    """Give a worker the seed."""
    node.workerinput["instants_seed"] = node.config.option.instants_seed


def some_instants(config: pytest.Config, kind: str, every: Sequence[T]) -> list[T]:
    """Those of all instants of a kind that this session takes, in their order."""
    if config.option.instants == "all" or len(every) <= INSTANTS:
        return list(every)
    chosen = random.Random(f"{config.option.instants_seed} {kind}").sample(range(len(every)), INSTANTS)
    return [every[index] for index in sorted(chosen)]


@pytest.fixture
def instants(request: pytest.FixtureRequest) -> Callable[[str, Sequence[Any]], list[Any]]:
    """`instants(kind, all)`: those that this session takes. For a test with an instant each there is the mark of the same name."""
    return lambda kind, every: some_instants(request.config, kind, every)


def cluster_is_missing() -> str:
    """What the test cluster, or a Docker daemon, lacks on this machine, in words; empty when it can be brought up."""
    if os.geteuid() != 0:
        return "they need root"
    missing = subprocess.run(["bash", ROOT / "tests/install_deps.sh", "--missing"], capture_output=True, text=True, check=False)
    return (
        f"system packages are missing: {missing.stdout.strip() or missing.stderr.strip()}"
        if missing.stdout.strip() or missing.returncode
        else ""
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The tests on the cluster come first, then those of the whole chain, since they take longest; those of single modules come last.

    Where the cluster cannot be brought up its tests are left out, which the last lines say; in CI they fail then.
    """
    for item in items:
        if item.path.is_relative_to(CLUSTER) or item.path.is_relative_to(BENCHMARKS):
            item.add_marker(pytest.mark.slow)
    dropped = _instants_left_out(config, items)
    on_cluster = [item for item in items if item.path.is_relative_to(CLUSTER) or item.path == DOCKER]
    if on_cluster and config.option.markexpr != "not slow" and not os.environ.get("CI") and (why := cluster_is_missing()):
        config.stash[NOT_RUN] = (
            f"{len(on_cluster)} tests of the cluster and Docker did not run: {why}; `make test-deps test` as root runs them"
        )
        if hasattr(config, "workeroutput"):  # a worker's way to tell the process that prints
            config.workeroutput["not_run"] = config.stash[NOT_RUN]
        dropped += on_cluster
    if dropped:
        config.hook.pytest_deselected(items=dropped)
    left_out = set(dropped)
    items[:] = sorted((item for item in items if item not in left_out), key=_place)


def _instants_left_out(config: pytest.Config, items: list[pytest.Item]) -> list[pytest.Item]:
    """Of the tests marked as instants, a parameter each, those that this session leaves out."""
    kinds = defaultdict(list)
    for item in items:
        if item.get_closest_marker("instants"):
            kinds[item.nodeid.partition("[")[0]].append(item)
    taken = {item for kind, every in kinds.items() for item in some_instants(config, kind, every)}
    return [item for every in kinds.values() for item in every if item not in taken]


def _place(item: pytest.Item) -> int:
    folders = item.path.relative_to(ROOT / "tests").parts[:-1]
    return 0 if folders[:1] == ("cluster",) else 1 if not folders else 2


class ClustersAndFiles(LoadFileScheduling):
    """Each group of files in CLUSTERS is run by one worker, one after another, on a cluster of its own; so is every other file, on none.

    Not xdist's groups: xdist 3.8 marks them by an attribute that pytest 9.2 does not read any more.
    """

    def _split_scope(self, nodeid: str) -> str:
        folder, _, name = nodeid.partition("::")[0].rpartition("/")
        if folder != "tests/cluster":
            return super()._split_scope(nodeid)
        return str(next((number for number, names in enumerate(CLUSTERS) if name in names), 0))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ClustersAndFiles:
    """Which worker runs what."""
    return ClustersAndFiles(config, log)


def pytest_testnodedown(node: WorkerController) -> None:
    """What a worker left out is said by the process that prints."""
    if text := getattr(node, "workeroutput", {}).get("not_run"):
        node.config.stash[NOT_RUN] = text


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    """Say in the last lines what did not run and what takes too long: pytest prints its list of failures after all summaries but this."""
    yield
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ()) if report.when == "call"]
    if slow := [f"{report.nodeid} ({report.duration:.1f} s)" for report in reports if _is_too_slow(report)]:
        terminalreporter.write_line(f"longer than {LIMIT:g} s and not marked as slow: {', '.join(slow)}", yellow=True)
    if config.option.instants == "some" and any("instants" in report.keywords for report in reports):
        seed = config.option.instants_seed
        terminalreporter.write_line(
            f"kills at {INSTANTS} instants a kind: --instants-seed={seed} takes these again, --instants=all takes all"
        )
    if text := config.stash.get(NOT_RUN, ""):
        terminalreporter.write_line(text, yellow=True)


def _is_too_slow(report: pytest.TestReport) -> bool:
    return report.duration > LIMIT and "slow" not in report.keywords
