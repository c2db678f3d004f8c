"""Why something failed, by the lines that programs print: one table, in which each text has its cause and its fix.

It is in `common` because both `images` (logs of imports) and `executors` (logs of tasks, also of those that run without a cluster) read it.
A new text is a line in CAUSES.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

# The logs of a task: Slurm's own of its job, the model server's, and the harness's. ANY: a log of one of these kinds.
NODE, ANY = "slurm server client", "any"
IMPORT_LOGS = ("import", "daemon", "known")
# What enroot prints is in the log of an import, and in a task's log after the word "pyxis:" and some spaces.
ENROOT, QUOTED = "import pyxis", re.compile(r"^.*?\bpyxis:\s{2,}")
MOST_LINES, MOST_CHARACTERS = 3, 300
REQUEST_TIMEOUT = 'SET="evaluation.nemo_evaluator_config.config.params.request_timeout=7200"'
_READ_SERVER = "read its log: `make logs WHICH=server`"
_OTHER_NODES = "choose a partition whose nodes have it, or ask the cluster's administrators"
_PROLOG = "a script that the cluster runs before each job (its prolog) failed on the node"
_MORE_MEMORY = "give the profile more mem, or another build_partition"

# Lines that look like errors and are none: our own progress URL refuses each count, a setting's name contains "failed", and the server is
# stopped when the evaluation ends.
HARMLESS = re.compile(
    r"progress tracking server|127\.0\.0\.1:9\b|log_failed_requests|forcing job termination|Job step aborted"
    r"|srun: error: .*: (Killed|Terminated)|^\+"
)
# Lines that say only that something failed. Those that say why come before them, or, in a log of enroot, between them.
SUMMARY = re.compile(
    r"\bspank: |spank_\w+ failed|pyxis: (child \d+ failed|container start failed|failed to|could(n't| not) (start|create|import))"
    r"|pyxis: (printing|import)"
    r"|^srun: (error: \S+ tasks? |launch/|Terminating)|^slurmstepd\S*: error: \*\*\*|^parallel: This job failed|Exiting with failure status"
)
# The names of enroot's steps contain words such as whiteouts.
PROGRESS = re.compile(r"^\[INFO\]")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Which line says best why something failed, best first: our own error, the last line of a traceback, a program's error, any trouble.
TELLING = [
    re.compile(r"^error: "),
    re.compile(r"^[\w.]*(Error|Exception|Exit)\b.*: "),
    re.compile(r"\b(ERROR|FATAL)\b|not supported"),
    re.compile(r"error|exception|refused|denied|not found|no such|failed|killed", re.IGNORECASE),
]


@dataclass(frozen=True)
class Cause:
    r"""A known way to fail.

    `logs`: the kinds of logs that can show it, parted by spaces: slurm, server, client; import; pyxis (enroot's lines in one of the
    first three); daemon (an import from Docker or Podman); known (an import of an image that the registry has). `words`: a regular
    expression, in any case, for a line; one with \Z or \n is for the whole log, without summaries. `what` and `fix` may have {names}, see
    UNNAMED. `read`: the kind of log to read, if another. `state`: that of the task, instead of
    what Slurm says.
    """

    logs: str
    words: str
    what: str
    fix: str
    read: str = ""
    state: str = ""

    @property
    def is_of_a_start(self) -> bool:
        """Whether a step or its container could not start: then the line that shows it says more than the cause."""
        return self.logs in (NODE, ENROOT)


# Of causes that are both in a log, the first one here counts: what happens first in a job, and what says more.
CAUSES = [
    # A step that its node cannot start.
    Cause(NODE, r"Error running slurm prolog|(srun|slurmstepd|slurmd)\S*: .*prolog.* failed",
          _PROLOG, "`make resume` takes another node; tell the cluster's administrators, or name the node in exclude in env.toml",
          state="FAILED"),  # Slurm calls such a job cancelled
    Cause("import", r"slurm prolog", _PROLOG, "run the same command again", state="FAILED"),
    Cause(NODE, r"unrecognized option .--(no-)?container-|SPANK plugin .pyxis. option .* not found",
          "the node has no Pyxis, which runs containers", _OTHER_NODES),
    # enroot: importing an image, and starting a container of it.
    Cause("daemon", r"Command not found: (docker|podman)|connect to the Docker daemon|access denied|image not known|no such image"
          r"|manifest unknown", "{engine} on the node has no {name}, or is not running", "name the image by its registry, docker://…"),
    Cause("known", r"returned error code: 404",
          "{registry} has it, but not in Docker's format, the only one that enroot {version} reads (404)",
          "push it in that format (`skopeo copy --format v2s2`)"),
    Cause(ENROOT, r"failed to create user namespace: ",
          "the node gives no user namespace to enroot: its limit (user.max_user_namespaces) is used up or 0; no disk is full",
          "choose a partition whose nodes allow them, or ask the cluster's administrators to raise the limit"),
    Cause("import", r"no space left on device|disk quota exceeded|write failed|wrote only \d+ of|output filesystem",
          "no space is left in {folder}, where the import works",
          "free some (`make clean-images`), or choose another remote_job_dir"),
    Cause("pyxis", r"no space left on device|disk quota exceeded|write failed|wrote only \d+ of|output filesystem",
          "no space is left where enroot unpacks the container on the node",
          "choose another partition, or ask the cluster's administrators (ENROOT_DATA_PATH and ENROOT_TEMP_PATH in enroot.conf)"),
    Cause("import", r"oom-kill|out of memory|\bOOM\b|killed\b|error code 137", "it ran out of memory", _MORE_MEMORY),
    Cause(ENROOT, r"Downloading \d+ missing layers(.*\n)+?.*curl: \(22\).*\b404\b",
          "{registry} has the image's manifest, but lacks one of its layers (404)", "push the image again, or choose another tag"),
    Cause(ENROOT, r"could not resolve host|connection refused|timed out|network is unreachable|no such host|i/o timeout|failed to connect",
          "the compute node cannot reach {registry}", "choose a build_partition whose nodes can, or another registry"),
    Cause(ENROOT, r"certificate problem|certificate verify failed", "the compute node does not trust the certificate of {registry}",
          "have its authority installed there, or use another registry"),
    Cause(ENROOT, r"curl: \((18|55|56|92)\)|transfer closed with|recv failure|connection reset|incomplete deflate data|stdin: unexpected",
          "the connection to {registry} broke while a layer was downloaded", "run the same command again"),
    Cause(ENROOT, r"checksum mismatch|digest.* not match|invalid checksum|unexpected EOF|premature end|zstd: .*err",
          "a layer is damaged in the registry or was damaged in transit", "try again, or push the image again"),
    Cause(ENROOT, r"toomanyrequests|\b429\b|rate limit", "{registry} refuses more requests for now (its rate limit)",
          "wait, or log in with a line in ~/.config/enroot/.credentials there"),
    Cause(ENROOT, r"returned error( code)?: 5\d\d|HTTP status(:| code) 5\d\d|\b50\d (Internal|Bad|Service|Gateway)",
          "{registry} has trouble of its own (an answer of 500 or more)", "try again later, or ask those who run it"),
    Cause(ENROOT, r"could not process JSON input|invalid character '<'",
          "what answered was not {registry}, but perhaps a proxy with a page of its own",
          "check the proxy that enroot uses on the node (https_proxy, no_proxy), or choose another build_partition"),
    Cause(ENROOT, r"\b40[13]\b|unauthorized|authentication required|access to the resource is denied", "{registry} refuses it (401)",
          "{credentials}, or check the name"),
    Cause(ENROOT, r"\[INFO\] (Authenticating with user|Using credentials from file).*\Z",
          "{registry} refuses the credentials, whereupon enroot ends without a word (401)", "{credentials}, with a password that is valid"),
    Cause(ENROOT, r"command not found", "enroot lacks a program on the node (see the log)",
          "ask the cluster's administrators, or choose another build_partition"),
    Cause(ENROOT, r"\b404\b|manifest unknown|MANIFEST_UNKNOWN|name unknown|NAME_UNKNOWN", "{registry} has no {name} (404)",
          "check the name and the tag"),
    Cause(ENROOT, r"no image found .*for architecture|no matching manifest", "it has no image for {platform}, which the nodes are",
          "choose another image or tag"),
    Cause(ENROOT, r"could not create (character|block) device", "the image holds device files, which only root may create",
          "import it again with FORCE_SQUASH=1; leave them out of a .sqsh file of your own (`mksquashfs … -wildcards -e 'dev/*'`)"),
    Cause(ENROOT, r"failed to set capabilities", "enroot may not unpack layers on the node",
          "have its package enroot+caps installed there, or choose another build_partition"),
    Cause(ENROOT, r"compressor .* is not supported", "mksquashfs on the node cannot write the format that enroot asks for",
          "ask the cluster's administrators to change ENROOT_SQUASH_OPTIONS in enroot.conf, or choose another build_partition"),
    Cause("import", r"whiteout|operation not supported|function not implemented",
          "the filesystem of {folder} cannot hold layers, and the node has no disk", "choose another remote_job_dir or build_partition"),
    Cause(ENROOT, r"invalid image reference", "enroot {version} cannot read this form of a reference", "write HOST#NAME:TAG"),
    Cause("import", r"not found", "{registry} has no {name} (404)", "check the name and the tag"),
    Cause("import", r"permission denied", "something in {folder} cannot be read or written", "fix its permissions"),
    Cause(NODE, r"pyxis: .*(failed to import|couldn't|failed to create container|no such file)|invalid image format|enroot.*no such file",
          "the container image was not found or cannot be read", "check deployment.image and the task's container"),
    # The model server.
    Cause("server client", r"could not select device driver .*gpu", "Docker cannot give the container a GPU",
          "install the NVIDIA Container Toolkit on this machine, or choose another PROFILE"),
    Cause("server client", r"read-only file system", "the container, or a mount in it, is read-only",
          "set no PYXIS_CONTAINER_READONLY, and PYXIS_CONTAINER_WRITABLE to 1, and mount without :ro what is written to"),
    Cause("server", r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory|no available memory for the cache blocks",
          "the model server ran out of GPU memory",
          "raise deployment.tensor_parallel_size, or lower its context length (--max-model-len) or its batch"),
    Cause("server", r"max_model_len .*is greater than", "--max-model-len is more than the checkpoint's config.json allows", "lower it"),
    Cause("server", r"divisible by tensor parallel size", "the model's attention heads cannot be divided among so many GPUs",
          "choose a deployment.tensor_parallel_size that divides their number in the checkpoint's config.json"),
    Cause("server", r"address already in use|Errno 98", "another program on the node uses the server's port",
          'choose another one: SET="deployment.port=8081"'),
    Cause("slurm", r"Health check timeout after \d+s", "health check timed out: the model server did not answer in time",
          "raise execution.endpoint_readiness_timeout, and read the server's log (`make logs WHICH=server`)", read="server"),
    Cause(NODE, r"invalid MPI type|plugin (name )?for mpi/pmix|can ?not load PMIx library",
          "Slurm cannot use PMIx on the node, with which the launcher starts each step (srun --mpi pmix)",
          "choose a partition whose nodes have it, or ask the cluster's administrators for Slurm's PMIx plugin and libpmix"),
    Cause("slurm", r"(server|[\w-]+ server) process \d+ died", "the model server died before it was ready", _READ_SERVER, read="server"),
    # The evaluation.
    Cause("slurm", r"Maximum total walltime .* exceeded", "max_walltime was reached by the job and its successors",
          "raise execution.max_walltime, or evaluate fewer samples", read="client", state="TIMED_OUT"),
    Cause("slurm", r"oom-kill|out of memory|oom_kill", "a step used more memory than the job had", "raise mem in env.toml",
          read="client", state="OUT_OF_MEMORY"),
    Cause("client server slurm", r"no space left on device|disk quota exceeded", "the cluster's disk is full", "free space there"),
    Cause("client", r"tokenizer is required for loglikelihood tasks", "the task scores log-likelihoods and was given no tokenizer",
          'SET="evaluation.nemo_evaluator_config.config.params.extra.tokenizer=NAME", and extra.tokenizer_backend=huggingface'),
    Cause("client", r"couldn't instantiate the backend tokenizer", "the evaluation cannot read the tokenizer",
          "name a folder that is mounted there (execution.mounts.evaluation), or a name on the Hugging Face hub"),
    Cause("client server", r"GatedRepoError|gated (repo|dataset)|\b40[13]\b.*huggingface\.co|huggingface\.co.*\b40[13]\b",
          "Hugging Face refuses a model or a data set: its terms were not accepted, or there is no valid token",
          "accept them on its page there, and give a token that may read it (env_vars: HF_TOKEN: host:HF_TOKEN)"),
    Cause("client", r"read timed out|ReadTimeout|APITimeoutError|request timed out|TimeoutError", "the evaluation's requests timed out",
          f"give the model more time to answer: {REQUEST_TIMEOUT}"),
    Cause("client", r"connection refused|connection aborted|RemoteDisconnected|ConnectionResetError|max retries exceeded",
          "the model server stopped answering", _READ_SERVER, read="server"),
    Cause("client", r"\b401 (client error|unauthorized)", "a key or a token was refused", "check env_vars"),
]  # fmt: skip
# The names in the table, for those who do not know better.
UNNAMED = {
    "registry": "the registry", "name": "such image", "folder": "the folder of images", "platform": "the platform", "version": "there",
    "engine": "the daemon", "credentials": "~/.config/enroot/.credentials there must have a line for it",
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A cause, the kind of log and the line that show it, and its texts with the names filled in."""

    cause: Cause
    log: str
    line: str
    what: str
    fix: str


def find(logs: Mapping[str, Sequence[str]], names: Mapping[str, str] | None = None, causes: Sequence[Cause] = CAUSES) -> Found | None:
    """The first of the causes that these logs show: lines by the kind of log.

    `names`: those in the table's texts; the registry is that of an address in the log, unless said.
    """
    views = [view for log, lines in logs.items() for view in _views(log, lines)]
    for cause in causes:
        for _, log, lines in (view for wanted in cause.logs.split() for view in views if view[0] == wanted):
            if line := _shown(cause, lines):
                address = re.search(r"https?://([^/\s]+)/v2/", "\n".join(lines))
                named = UNNAMED | ({"registry": address[1]} if address else {}) | dict(names or {})
                return Found(cause, log, line, cause.what.format(**named), cause.fix.format(**named))
    return None


def _views(log: str, lines: Sequence[str]) -> Iterator[tuple[str, str, list[str]]]:
    """The lines of a log as logs of the kinds that the table knows: kind, log, lines."""
    clean = [line for line in (COLOURS.sub("", line).strip() for line in lines) if line and not HARMLESS.search(line)]
    for kind in NODE.split() if log == ANY else (log,):
        yield kind, log, clean
    if log not in IMPORT_LOGS:
        yield "pyxis", log, [QUOTED.sub("", line) for line in clean if QUOTED.match(line)]


def _shown(cause: Cause, lines: list[str]) -> str:
    """The line that shows a cause, a telling one if there are several; empty if none does."""
    text = "\n".join(line for line in lines if not SUMMARY.search(line))
    if found := re.search(cause.words, text, re.IGNORECASE) if re.search(r"\\Z|\\n", cause.words) else None:
        return text[: found.end()].rpartition("\n")[2] + text[found.end() :].partition("\n")[0]
    fits = [line for line in lines if re.search(cause.words, line, re.IGNORECASE) and not PROGRESS.search(line)]
    return next((line for line in fits if not SUMMARY.search(line)), fits[0] if fits else "")


def telling(lines: Sequence[str]) -> list[str]:
    """The last lines of the kind that says best why something failed, at most MOST_LINES; if there are none, the last line."""
    serious = [line for line in lines if line.strip() and not HARMLESS.search(line)]
    says_why = [line for line in serious if not SUMMARY.search(line)]
    for some in (says_why, serious):
        for words in TELLING:
            if found := [line[:MOST_CHARACTERS] for line in some if words.search(line)]:
                return found[-MOST_LINES:]
    return [line[:MOST_CHARACTERS] for line in (says_why or serious)[-1:]]
