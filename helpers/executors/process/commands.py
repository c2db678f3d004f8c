"""A deployment's command without its container: which program it needs, the real path of the checkpoint, and the real port."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers.common.errors import BadInput
from helpers.common.files import ROOT

# The launcher's deployments that are served here as in their containers. They are installed apart from evalmake, by the user.
SERVERS = {"vllm": "vLLM", "sglang": "SGLang"}
MOUNT = re.compile(r"(?<![\w.~/-])/checkpoint(?![\w.-])")  # where a container has the checkpoint
ANY_PORT = re.compile(r"(--port[ =])0(?!\S)")
PYTHON_SECONDS = 60  # to look for a module; a network filesystem may be slow


def here(deployment: Mapping[str, Any]) -> str:
    """The command as a process runs it: the checkpoint's own path instead of /checkpoint, and `$PORT` instead of port 0."""
    command, checkpoint = str(deployment["command"]), deployment.get("checkpoint_path")
    if checkpoint:
        path = shlex.quote(str(ROOT / checkpoint))
        command = MOUNT.sub(lambda _: path, command)
    return command if deployment.get("port") else ANY_PORT.sub(r"\1$PORT", command)


def environment_of(deployment: Mapping[str, Any]) -> str | None:
    """The virtual environment that the command runs in: a folder, `` for what PATH gives, None for evalmake's own."""
    venv = deployment.get("venv")
    return str(ROOT / Path(venv).expanduser()) if venv else "" if deployment["type"] in SERVERS else None


def check(deployment: Mapping[str, Any]) -> None:
    """Raise BadInput, with the fix, unless the command can start here and can know its port."""
    command = here(deployment)
    if not deployment.get("port") and re.search(r"--port[ =](?!\S*\$\{?PORT\b)", command):
        raise BadInput("deployment.port is 0 (any free port), but deployment.command names another; write `--port $PORT` there")
    venv, kind = environment_of(deployment), deployment["type"]
    if venv and not Path(venv, "bin").is_dir():
        raise BadInput(f"deployment.venv: {venv} is no virtual environment (it has no folder bin); give the folder of one")
    words = [*command.removeprefix("exec ").split(), "", "", ""]
    if kind not in SERVERS or words[0] not in ("vllm", "python", "python3"):
        return  # the config has a command of its own
    fix = f'give SET="deployment.venv=FOLDER", a virtual environment with {SERVERS[kind]}, or put the folder of its command on PATH'
    program = shutil.which(words[0], path=str(Path(venv, "bin")) if venv else None)
    if program is None:
        raise BadInput(f"deployment.type {kind}: there is no {words[0]} command {f'in {venv}/bin' if venv else 'on PATH'}; {fix}")
    if words[1] == "-m":
        module = words[2].partition(".")[0]
        find = f"import importlib.util as u, sys; sys.exit(not u.find_spec({module!r}))"
        done = subprocess.run([program, "-c", find], cwd=os.sep, capture_output=True, timeout=PYTHON_SECONDS, check=False)
        if done.returncode:
            raise BadInput(f"deployment.type {kind}: {program} has no module {module}; {fix}")
