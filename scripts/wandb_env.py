#!/usr/bin/env python3
"""Write credentials.json: which variables a run needs, where each comes from, and which are missing. It never holds a value.

    scripts/wandb_env.py --config runs/20261122T013512Z-local-7f3a/config.yaml --out runs/20261122T013512Z-local-7f3a/credentials.json
    scripts/wandb_env.py --config - --out - --dry-run < config.yaml
    scripts/wandb_env.py --config config.yaml --out - --check          # is the key valid, and may it write to the project?
    WANDB_MODE=offline scripts/wandb_env.py --config config.yaml --out -

Contacts only the W&B server, and that only with --check or --preflight. Exit codes: 0 written or unchanged; 2 something is missing (not
with --dry-run), cannot be read, or is refused by W&B; 3 with --check: W&B did not answer.
"""

import os
from pathlib import Path

import _project  # noqa: F401
from helpers.common import command_line, console, files, run_folder, step
from helpers.common.errors import BadInput
from helpers.credentials import gathering
from helpers.executors import registry
from helpers.steps import request

parser = command_line.parser(__doc__)
parser.add_argument("--config", required=True, help="config.yaml of the run, or - for stdin")
parser.add_argument("--out", required=True, help="credentials.json of the run, or - for stdout")
parser.add_argument("--env-dir", type=Path, metavar="DIR", help="folder of a .env file (default: the folder of the env.toml in use)")
parser.add_argument("--dry-run", action="store_true", help="list what is missing, without failing")
parser.add_argument("--check", action="store_true", help="ask W&B whether the key is valid and may write to the project")
parser.add_argument("--preflight", action="store_true", help="the same, but only print a notice when W&B could not be asked")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    if options.env_dir and not options.env_dir.is_dir():
        raise BadInput(f"--env-dir {options.env_dir}: no such folder")
    with step.recorded(run_folder.run_of(options.out), "wandb_env"):
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
            if (options.check or options.preflight) and (verdict := found.check(lenient=options.preflight)):
                console.info(verdict)
        document = found.document({"config.yaml": seal})
        if options.out != "-" and Path(options.out).exists() and files.read_json(options.out, "credentials") == files.seal_json(document):
            Path(options.out).touch()  # its content is up to date, and so is its time for Make
        else:
            files.write_json(options.out, document, "credentials")
