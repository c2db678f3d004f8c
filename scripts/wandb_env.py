#!/usr/bin/env python3
"""Write credentials.json: which variables a run needs, where each comes from, and what is missing; names and sources, never a value.

    scripts/wandb_env.py --config runs/20261122T013512Z-local-7f3a/config.yaml --out runs/20261122T013512Z-local-7f3a/credentials.json
    scripts/wandb_env.py --config - --out - --dry-run < config.yaml
    scripts/wandb_env.py --config config.yaml --out - --check          # is the key good, and may it write to the project?
    WANDB_MODE=offline scripts/wandb_env.py --config config.yaml --out -

Contacts nothing but, with --check or --preflight, the W&B server. Exit codes: 0 written or unchanged, 2 something is missing (not with
--dry-run), cannot be read, or is refused by W&B, 3 with --check: W&B could not be asked.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.common import console, files, run_folder, step
from helpers.common.errors import BadInput, run_main
from helpers.credentials import gathering
from helpers.executors import registry
from helpers.steps import request


def main(arguments: list[str]) -> None:
    """Gather the credentials of a compiled config and record where they come from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="config.yaml of the run, or - for stdin")
    parser.add_argument("--out", required=True, help="credentials.json of the run, or - for stdout")
    parser.add_argument(
        "--env-dir", type=Path, metavar="DIR", help="folder of a .env file (default: the folder of the env.toml that counts)"
    )
    parser.add_argument("--dry-run", action="store_true", help="list what is missing, and go on")
    parser.add_argument("--check", action="store_true", help="ask W&B whether the key is good and may write to the project")
    parser.add_argument("--preflight", action="store_true", help="the same, and go on with a notice where W&B could not be asked")
    options = parser.parse_args(arguments)
    if options.env_dir and not options.env_dir.is_dir():
        raise BadInput(f"--env-dir {options.env_dir}: no such folder")
    with step.recorded(run_folder.run_of(options.out) if options.out != "-" else None, "wandb_env"):
        config, seal, _ = files.read_yaml(options.config, "config")
        folder = options.env_dir or request.env_folder(options.config)
        is_local = registry.get(config["execution"]["type"]).reads_local_files
        found = gathering.gather(config, folder, os.environ, reads_local_files=is_local)
        found.announce()
        if options.dry_run:
            for missing in found.missing:
                console.notice(f"missing: {missing}")
        else:
            found.require()
            if (options.check or options.preflight) and (good := found.check(lenient=options.preflight)):
                console.info(good)
        write(options.out, found.document({"config.yaml": seal}))


def write(out: str, document: dict[str, object]) -> None:
    """Write the file, unless it says the same already: then only its time is renewed, so that Make sees it as made."""
    if out != "-" and Path(out).exists() and files.read_json(out, "credentials") == files.seal_json(document):
        Path(out).touch()
    else:
        files.write_json(out, document, "credentials")


if __name__ == "__main__":
    run_main(main)
