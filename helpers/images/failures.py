"""Why an image import failed, in a sentence with the mend: out of the job's verdict, Slurm's word for its end, and enroot's log. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from helpers.common.errors import one_line
from helpers.images.references import DAEMONS, Image

CREDENTIALS = "~/.config/enroot/.credentials"
# Registries whose tokens come from another host, for which the credentials must have a line too.
TOKENS = {"nvcr.io": "authn.nvidia.com", "registry-1.docker.io": "auth.docker.io"}
# What the tools say (enroot, curl, skopeo, mksquashfs, the kernel), and what to do. The first that fits counts.
WORDS = [
    (
        r"No space left on device|Disk quota exceeded|Write failed because|write failed.*[Nn]o space",
        "there is no space left in {folder}, where it works: free some (`make clean-images`), or give another remote_job_dir",
    ),
    (
        r"oom-kill|Out of memory|OOM|Killed\b|error code 137",
        "it was killed for memory: give the profile more mem, or another build_partition",
    ),
    (
        r"checksum mismatch|Digest did not match|digest.*does not match|unexpected EOF|invalid checksum",
        "a layer is damaged in the registry, or on its way here: push the image again, or try again",
    ),
    (
        r"Could not resolve host|Connection refused|timed out|Network is unreachable|no such host|i/o timeout|Failed to connect",
        "the compute node does not reach {registry}: give a build_partition whose nodes do, or a registry that they reach",
    ),
    (
        r"certificate problem|certificate verify failed",
        "the compute node does not trust the certificate of {registry}: have its authority installed there, or take another registry",
    ),
    (
        r"toomanyrequests|\b429\b|rate limit",
        "{registry} answers no more for now (its rate limit): wait, or log in with a line in " + CREDENTIALS + " there",
    ),
    (
        r"\b40[13]\b|unauthorized|authentication required|access to the resource is denied",
        "{registry} refuses it (401): {credentials}, or check the name",
    ),
    (
        r"command not found",
        "enroot lacks a program on the node (see the log): ask the cluster's administrators, or give another build_partition",
    ),
    (
        r"\b404\b|manifest unknown|MANIFEST_UNKNOWN|name unknown|NAME_UNKNOWN|not found",
        "{registry} has no {name} (404): check name and tag",
    ),
    (r"no image found .*for architecture|no matching manifest", "it has no {platform}, which the nodes are: name another image or tag"),
    (
        r"failed to set capabilities",
        "enroot may not lay out layers on the node: have its package enroot+caps installed there, or give another build_partition",
    ),
    (
        r"whiteout|Operation not supported|Function not implemented",
        "the filesystem of {folder} cannot hold layers, and the node has no disk: give another remote_job_dir or build_partition",
    ),
    (r"Invalid image reference", "enroot {version} cannot read this form of a reference: write HOST/NAME:TAG"),
    (r"Permission denied", "something in {folder} cannot be read or written: mend its permissions"),
]
# What docker and podman say when they are not there, do not run, or lack an image of their own.
NO_DAEMON = r"Command not found: (docker|podman)|connect to the Docker daemon|access denied|image not known|no such image|manifest unknown"
# Slurm's words for how a job ended.
STATES = {
    "TIMEOUT": "it took longer than its walltime: give the profile a longer build_time",
    "OUT_OF_MEMORY": "it was killed for memory: give the profile more mem, or another build_partition",
    "NODE_FAIL": "its node failed: give the same command again",
    "BOOT_FAIL": "its node failed: give the same command again",
    "PREEMPTED": "other jobs pushed it out: give a build_partition whose jobs stay, or the same command again",
    "CANCELLED": "it was cancelled: give the same command again",
    "DEADLINE": "Slurm ended it at its deadline: give a longer build_time",
}


@dataclass(frozen=True)
class Failed:
    """How an import ended: its token and job, Slurm's states, the verdict of import_job.sh, enroot's version, and the log's last lines."""

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


def read(text: str) -> Failed:
    """A frame `failed` of imports.sh."""
    token, job, states, verdict, version, *log = [*text.split("\n"), *[""] * 5]
    told = [state.partition("+")[0] for state in states.split()]
    return Failed(token, job, told, verdict, version, [line for line in log if line.strip()])


def why(failed: Failed, image: Image, folder: str, platform: str, digest: str | None = None) -> str:
    """One sentence: what is wrong, and the mend. `digest`: what the registry itself told of the image."""
    word, _, rest = failed.verdict.partition(" ")
    names = {"folder": folder, "name": image.canonical, "registry": image.registry or "the registry", "platform": platform}
    own = {
        "no-enroot": f"there is no enroot on {rest}: give a build_partition whose nodes have it, or ask the cluster's administrators",
        "no-archive": f"{rest} cannot be read on the node: check the path, and that it lies on a filesystem that nodes see",
        "no-tool": f"enroot reads no archives, and the node lacks {rest}: push the image to a registry, or have podman, or skopeo, umoci "
        "and mksquashfs installed",
        "no-digest": f"enroot {failed.version} cannot import by digest: name a tag beside it (NAME:TAG@sha256:…)",
        "broken": "what enroot wrote is no whole squashfs: see the log, and try again",
        "moved": f"the tag moved to {rest} while it was imported: give the same command again",
        "architecture": f"it is not of {platform}, which the nodes are: name another image or tag",
    }
    if word in own:
        return own[word]
    # OUT_OF_MEMORY may be a step's, behind the job's own FAILED.
    if state := next((state for state in failed.states if state in STATES), ""):
        return STATES[state]
    # The names of enroot's steps hold such words too.
    text = "\n".join(line for line in failed.log if not line.startswith("[INFO]"))
    if image.kind in DAEMONS and re.search(NO_DAEMON, text, re.IGNORECASE):
        engine = image.kind.removesuffix("d")
        return (
            f"{engine} on the node has no {image.canonical.partition(':')[2]}, or does not run: name the image by its registry, docker://…"
        )
    if digest and re.search(r"returned error code: 404", text):
        form = f"not in Docker's format, for which alone enroot {failed.version or 'there'} may ask (404)"
        return f"{names['registry']} has it, but {form}: push it so (`skopeo copy --format v2s2`)"
    for pattern, mend in WORDS:
        if re.search(pattern, text, re.IGNORECASE):
            return mend.format(**names, version=failed.version or "there", credentials=_credentials(image))
    if word == "failed":
        own_words = [line for line in failed.log if not line.startswith(("srun:", "slurmstepd:"))]
        return f"enroot failed with code {rest}: {one_line(own_words[-1]) if own_words else 'it says nothing'}"
    states = ", ".join(dict.fromkeys(failed.states)) or "gone"
    return f"its job ended ({states}) before it was done: see the log, and give the same command again"


def _credentials(image: Image) -> str:
    host = image.registry.partition(":")[0]
    lines = [host, *([TOKENS[host]] if host in TOKENS else [])]
    return f"{CREDENTIALS} there must have " + " and ".join(f"`machine {one} login … password …`" for one in lines)
