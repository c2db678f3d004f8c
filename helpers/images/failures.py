"""Why an image import failed, in a sentence with the fix: from the job's verdict, the state in which it ended, and enroot's log."""

from dataclasses import dataclass, field

from helpers.common import causes
from helpers.common.errors import one_line
from helpers.images.references import DAEMONS, Image

CREDENTIALS = "~/.config/enroot/.credentials"
# Registries that get their tokens from another host; the credentials must have a line for that host too.
TOKENS = {"nvcr.io": "authn.nvidia.com", "registry-1.docker.io": "auth.docker.io"}
# The states in which a job can end.
STATES = {
    "TIMEOUT": "it took longer than its walltime: give the profile a longer build_time",
    "OUT_OF_MEMORY": "it ran out of memory: give the profile more mem, or another build_partition",
    "NODE_FAIL": "its node failed: run the same command again",
    "BOOT_FAIL": "its node failed: run the same command again",
    "PREEMPTED": "other jobs took its node: choose a build_partition without preemption, or run the same command again",
    "CANCELLED": "it was cancelled: run the same command again",
    "DEADLINE": "Slurm ended it at its deadline: give the profile a longer build_time",
}


@dataclass(frozen=True)
class FailedImport:
    """How an import ended: its token and job, the states of job and steps, import_job.sh's verdict, enroot's version, the log's end."""

    token: str
    job: str
    states: list[str]
    verdict: str
    version: str
    log: list[str] = field(default_factory=list)

    @property
    def is_without_enroot(self) -> bool:
        """Whether the node has no enroot at all."""
        return self.verdict.startswith("no-enroot")


def read(text: str) -> FailedImport:
    """The import of a frame `failed` of imports.sh."""
    token, job, states, verdict, version, *log = [*text.split("\n"), *[""] * 5]
    ended = [state.partition("+")[0] for state in states.split()]
    return FailedImport(token, job, ended, verdict, version, [line for line in log if line.strip()])


def why(failed: FailedImport, image: Image, folder: str, platform: str, digest: str | None = None) -> str:
    """One sentence: what is wrong, and the fix. `digest`: that of the image, if the registry gave one."""
    word, _, rest = failed.verdict.partition(" ")
    names = {"folder": folder, "name": image.canonical, "registry": image.registry or "the registry", "platform": platform}
    own = {
        "no-enroot": f"there is no enroot on {rest}: choose a build_partition whose nodes have it, or ask the cluster's administrators",
        "no-archive": f"{rest} cannot be read on the node: check the path, and that nodes have its filesystem",
        "no-tool": f"enroot does not read archives, and the node lacks {rest}: push the image to a registry, or have podman, or skopeo, "
        "umoci and mksquashfs, installed",
        "no-digest": f"enroot {failed.version} cannot import by digest: give a tag too (NAME:TAG@sha256:…)",
        "broken": "enroot wrote an incomplete squashfs: see the log, and try again",
        "moved": f"the tag moved to {rest} during the import: run the same command again",
        "architecture": f"it is not for {platform}, which the nodes are: choose another image or tag",
    }
    if word in own:
        return own[word]
    names |= {"version": failed.version or "there", "credentials": _credentials(image)}
    # Where enroot did not end by itself, the last line of its log is no last word.
    log = failed.log if word == "failed" else [*failed.log, "[evalmake] enroot was ended"]
    logs = {"known": log} if digest else {}
    if image.kind in DAEMONS:
        logs["daemon"] = log
        names |= {"engine": image.kind.removesuffix("d"), "name": image.canonical.partition(":")[2]}
    found = causes.find({**logs, "import": log}, names)
    if found and found.cause.state:
        return f"{found.what}: {found.fix}"
    # OUT_OF_MEMORY may be the state of a step, while the job itself FAILED.
    if state := next((state for state in failed.states if state in STATES), ""):
        return STATES[state]
    if found:
        return f"{found.what}: {found.fix}"
    if word == "failed":
        said = causes.telling([line for line in failed.log if not line.startswith(("srun:", "slurmstepd"))])
        return f"enroot failed with code {rest}: {one_line(said[-1]) if said else 'it printed nothing'}"
    states = ", ".join(dict.fromkeys(failed.states)) or "unknown"
    return f"its job ended ({states}) before it was done: see the log, and run the same command again"


def _credentials(image: Image) -> str:
    host = image.registry.partition(":")[0]
    lines = [host, *([TOKENS[host]] if host in TOKENS else [])]
    return f"{CREDENTIALS} there must have " + " and ".join(f"`machine {one} login … password …`" for one in lines)
