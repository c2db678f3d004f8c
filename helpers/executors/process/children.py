"""The environment of the processes that a supervisor starts."""

import os
import sys
from pathlib import Path

from helpers.common.errors import BadInput
from helpers.common.files import ROOT


def environment(names: dict[str, str], extra: dict[str, str], venv: str | None = None) -> dict[str, str]:
    """The environment of a child: ours, `names` (NAME -> `host:OTHER`, `runtime:OTHER` or `lit:TEXT`, as in the config), and `extra`.

    Requests to 127.0.0.1 never use a proxy. This environment's Python comes first on PATH, and the starter benchmarks are on PYTHONPATH;
    a program of another one has instead that folder's bin first (`venv`; ``: PATH alone), and none of our packages.
    Raises BadInput for a variable that is needed and not set.
    """
    child = dict(os.environ)
    for name, spec in names.items():
        kind, _, value = str(spec).partition(":")
        if kind == "lit":
            child[name] = value
        elif value in os.environ:
            child[name] = os.environ[value]
        else:
            raise BadInput(f"env_vars.{name} needs {value}, which is not set where the jobs were started; `export {value}=…`")
    child.update(extra)
    direct = [host.strip() for name in ("no_proxy", "NO_PROXY") for host in child.get(name, "").split(",") if host.strip()]
    # * means every host, but only when nothing else is listed.
    child["NO_PROXY"] = child["no_proxy"] = "*" if "*" in direct else ",".join(dict.fromkeys([*direct, "127.0.0.1", "localhost"]))
    first = str(Path(sys.executable).parent) if venv is None else venv and str(Path(venv, "bin"))
    child["PATH"] = os.pathsep.join(filter(None, [first, child.get("PATH", os.defpath)]))
    ours = [str(ROOT), str(ROOT / "helpers" / "harness")]
    theirs = [folder for folder in child.get("PYTHONPATH", "").split(os.pathsep) if folder and folder not in ours]
    child["PYTHONPATH"] = os.pathsep.join([*(ours if venv is None else []), *theirs])
    child.setdefault("PYTHONUNBUFFERED", "1")  # logs are looked at while they grow
    return child
