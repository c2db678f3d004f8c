"""The Docker daemon of this machine: whether it answers and gives GPUs to containers, and the containers of a run."""

import shutil
import subprocess
import time
from pathlib import Path

from helpers.common.errors import BadInput, StepFailed, Unreachable

DAEMON_SECONDS = 20  # a daemon that works answers in well under one
REMOVE_SECONDS = 60  # it kills the container first
SETTLE_SECONDS = 0.3  # a container that was asked for by a client that we killed appears some milliseconds later
FIX = "start Docker, or use CONFIG=local without a PROFILE, which needs no container"
LABEL = "evalmake.job"
# For execution.extra_docker_args: in the launcher's scripts, $task_dir is the job's folder.
LABELLED = f'--label "{LABEL}=$task_dir"'
NOT_FOUND = 127  # docker run: the container started, and its program is not there


def call(*arguments: str, stdin: bytes = b"", seconds: float = DAEMON_SECONDS) -> "subprocess.CompletedProcess[bytes]":
    """Run the docker command. Raises Unreachable when there is none, or no answer in time."""
    if shutil.which("docker") is None:
        raise Unreachable(f"executor docker: there is no docker command on this machine; {FIX}")
    try:
        return subprocess.run(["docker", *arguments], input=stdin, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise Unreachable(f"executor docker: the Docker daemon did not answer within {seconds:g} s; {FIX}") from None


def check(with_gpus: bool) -> None:
    """Raise Unreachable when no daemon answers, BadInput when it gives no GPUs to containers though they are wanted."""
    answer = call("info")
    if answer.returncode:
        raise Unreachable(f"executor docker: no Docker daemon answers ({_lines(answer)[-1]}); {FIX}")
    if with_gpus:
        _check_gpus()


def _check_gpus() -> None:
    """Start a container with GPUs from an empty image, which needs no download: only then does the daemon say whether it can."""
    image = call("import", "-", stdin=bytes(10240)).stdout.decode().strip()
    if not image:
        return
    try:
        answer = call("run", "--rm", "--network=none", "--gpus=all", "--entrypoint=/none", image)
    finally:
        call("rmi", image)
    if answer.returncode != NOT_FOUND:
        reason = _lines(answer)[0].removeprefix("docker: Error response from daemon: ")
        raise BadInput(
            f"executor docker: a container here gets no GPU ({reason}), and the model server wants all; install nvidia-container-toolkit "
            "and restart Docker, or choose deployment: none with a hosted endpoint, or another PROFILE"
        )


def containers(folder: Path) -> list[str]:
    """The ids of all containers, also stopped ones, of the jobs in `folder`, or of the job whose folder it is. Raises Unreachable."""
    answer = call("ps", "--all", "--no-trunc", f"--filter=label={LABEL}", f'--format={{{{.ID}}}} {{{{.Label "{LABEL}"}}}}')
    if answer.returncode:
        raise Unreachable(f"cannot ask Docker which containers are left ({_lines(answer)[-1]}); start it, then run the same command again")
    named = [line.partition(" ") for line in answer.stdout.decode().splitlines()]
    return [container for container, _, job in named if Path(job).resolve().is_relative_to(folder.resolve())]


def remove(folder: Path) -> int:
    """Kill and remove the containers of the jobs in `folder`, whose scripts have ended; returns how many there were.

    Raises Unreachable, and StepFailed when one is left.
    """
    gone: set[str] = set()
    deadline, was_empty = time.monotonic() + REMOVE_SECONDS, False
    while (left := containers(folder)) or not was_empty:
        if time.monotonic() > deadline:
            raise StepFailed(
                f"Docker does not remove {' '.join(one[:12] for one in left)}; restart Docker, then run the same command again"
            )
        if left:
            call("rm", "--force", *left, seconds=REMOVE_SECONDS)
            gone.update(left)
        else:
            time.sleep(SETTLE_SECONDS)
        was_empty = not left
    return len(gone)


def _lines(answer: "subprocess.CompletedProcess[bytes]") -> list[str]:
    return answer.stderr.decode(errors="replace").strip().splitlines() or [f"docker: exit code {answer.returncode}"]
