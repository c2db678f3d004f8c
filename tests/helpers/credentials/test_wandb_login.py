"""credentials/wandb_login.py: the same files as wandb itself. What is read of them: test_gathering.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.common import files
from helpers.credentials import wandb_login

pytestmark = pytest.mark.slow

CHECK_PATHS = """
import os
from wandb.sdk import wandb_setup
from helpers.credentials import wandb_login
settings = wandb_setup.singleton().settings
assert [str(path) for path in wandb_login.settings_files()] == [settings.settings_system, settings.settings_workspace]
"""


@pytest.mark.parametrize("folder", ["wandb", ".wandb"])
@pytest.mark.parametrize("more", [{}, {"WANDB_CONFIG_DIR": "~/conf"}])
def test_the_settings_files_are_those_that_wandb_reads(tmp_path: Path, more: dict[str, str], folder: str) -> None:
    (tmp_path / folder).mkdir()
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(files.ROOT), **more}
    subprocess.run([sys.executable, "-c", CHECK_PATHS], env=env, cwd=tmp_path, check=True, timeout=120)


def test_the_form_of_a_key_is_checked_by_wandb_and_the_key_not_shown() -> None:
    assert wandb_login.invalid("0" * 40) == ""
    assert wandb_login.invalid("planted-S3cret")
    assert "planted" not in wandb_login.invalid("planted-S3cret")


def test_the_command_names_a_server_of_ones_own() -> None:
    assert wandb_login.command("") == "`wandb login`"
    assert wandb_login.command("https://w.example", relogin=True) == "`wandb login --relogin --host=https://w.example`"
