"""Why an image import failed, in a sentence with the fix: from the job's verdict, the state in which it ended, and enroot's log."""

import re
from dataclasses import dataclass, field

from helpers.common.errors import one_line
from helpers.images.references import DAEMONS, Image

CREDENTIALS = "~/.config/enroot/.credentials"
# Registries that get their tokens from another host; the credentials must have a line for that host too.
TOKENS = {"nvcr.io": "authn.nvidia.com", "registry-1.docker.io": "auth.docker.io"}
# What the tools print (enroot, curl, skopeo, mksquashfs, the kernel), and what to do. The first match counts.
WORDS = {
    r"No space left on device|Disk quota exceeded|Write failed because|write failed.*[Nn]o space":
        "no space is left in {folder}, where the import works: free some (`make clean-images`), or choose another remote_job_dir",
    r"oom-kill|Out of memory|OOM|Killed\b|error code 137":
        "it ran out of memory: give the profile more mem, or another build_partition",
    r"checksum mismatch|Digest did not match|digest.*does not match|unexpected EOF|invalid checksum":
        "a layer is damaged in the registry or was damaged in transit: try again, or push the image again",
    r"Could not resolve host|Connection refused|timed out|Network is unreachable|no such host|i/o timeout|Failed to connect":
        "the compute node cannot reach {registry}: choose a build_partition whose nodes can, or another registry",
    r"certificate problem|certificate verify failed":
        "the compute node does not trust the certificate of {registry}: have its authority installed there, or use another registry",
    r"toomanyrequests|\b429\b|rate limit":
        "{registry} refuses more requests for now (its rate limit): wait, or log in with a line in " + CREDENTIALS + " there",
    r"\b40[13]\b|unauthorized|authentication required|access to the resource is denied":
        "{registry} refuses it (401): {credentials}, or check the name",
    r"command not found":
        "enroot lacks a program on the node (see the log): ask the cluster's administrators, or choose another build_partition",
    r"\b404\b|manifest unknown|MANIFEST_UNKNOWN|name unknown|NAME_UNKNOWN|not found":
        "{registry} has no {name} (404): check the name and the tag",
    r"no image found .*for architecture|no matching manifest":
        "it has no image for {platform}, which the nodes are: choose another image or tag",
    r"failed to set capabilities":
        "enroot may not unpack layers on the node: have its package enroot+caps installed there, or choose another build_partition",
    r"whiteout|Operation not supported|Function not implemented":
        "the filesystem of {folder} cannot hold layers, and the node has no disk: choose another remote_job_dir or build_partition",
    r"Invalid image reference": "enroot {version} cannot read this form of a reference: write HOST/NAME:TAG",
    r"Permission denied": "something in {folder} cannot be read or written: fix its permissions",
}  # fmt: skip
# What docker and podman print if they are missing, not running, or lack the image.
NO_DAEMON = r"Command not found: (docker|podman)|connect to the Docker daemon|access denied|image not known|no such image|manifest unknown"
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
    if any("slurm prolog" in line for line in failed.log):  # Slurm calls such a job cancelled
        return "a script that the cluster runs before each job (its prolog) failed on the node: run the same command again"
    # OUT_OF_MEMORY may be the state of a step, while the job itself FAILED.
    if state := next((state for state in failed.states if state in STATES), ""):
        return STATES[state]
    # The names of enroot's steps contain such words too.
    text = "\n".join(line for line in failed.log if not line.startswith("[INFO]"))
    if image.kind in DAEMONS and re.search(NO_DAEMON, text, re.IGNORECASE):
        engine = image.kind.removesuffix("d")
        return f"{engine} on the node has no {image.canonical.partition(':')[2]}, or is not running: name the image by its registry, docker://…"
    if digest and re.search(r"returned error code: 404", text):
        form = f"not in Docker's format, the only one that enroot {failed.version or 'there'} reads (404)"
        return f"{names['registry']} has it, but {form}: push it in that format (`skopeo copy --format v2s2`)"
    for pattern, fix in WORDS.items():
        if re.search(pattern, text, re.IGNORECASE):
            return fix.format(**names, version=failed.version or "there", credentials=_credentials(image))
    if word == "failed":
        own_words = [line for line in failed.log if not line.startswith(("srun:", "slurmstepd:"))]
        return f"enroot failed with code {rest}: {one_line(own_words[-1]) if own_words else 'it printed nothing'}"
    states = ", ".join(dict.fromkeys(failed.states)) or "unknown"
    return f"its job ended ({states}) before it was done: see the log, and run the same command again"


def _credentials(image: Image) -> str:
    host = image.registry.partition(":")[0]
    lines = [host, *([TOKENS[host]] if host in TOKENS else [])]
    return f"{CREDENTIALS} there must have " + " and ".join(f"`machine {one} login … password …`" for one in lines)
