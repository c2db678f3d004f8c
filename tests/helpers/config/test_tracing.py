"""Every value of a compiled config names the places that set it; changing the place that wins changes the value."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from checkout import ROOT
from compiled import PROFILE, SLURM, compile_text
from helpers.config import compiling, profiles
from helpers.config.compiling import Arguments, Compiled
from helpers.config.tracing import leaves, source_name, source_path
from helpers.executors import registry

# One value a line, so that a line can be changed.
CONFIG = """\
defaults:
  - execution: own
  - deployment: own
  - _self_
execution:
  partition: ${run.env.partition}
  subproject: mine
  env_vars:
    deployment:
      CACHE: /cache
  auto_export:
    destinations:
      - wandb
deployment:
  checkpoint_path: /ckpt/a
  extra_args: --first
  health_check_path: /up
evaluation:
  nemo_evaluator_config:
    config:
      params:
        parallelism: 2
  tasks:
    - name: hellaswag
    - name: openbookqa
      nemo_evaluator_config:
        config:
          params:
            limit_samples: 4
    - name: adlr_mmlu
export:
  wandb:
    project: ${run.wandb.project}
    entity: somebody
"""
OVERRIDE = Arguments(overrides=["deployment.port=8001"])
CHOSEN = Arguments(tasks=["openbookqa", "adlr_mmlu"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A config with groups of its own (copies of the launcher's, whose lines may be changed) and an env.toml."""
    from helpers.config.config_files import launcher_configs

    for group, source in (("execution", "slurm/default"), ("deployment", "vllm")):
        (tmp_path / group).mkdir()
        shutil.copy(launcher_configs() / group / f"{source}.yaml", tmp_path / group / "own.yaml")
    (tmp_path / "mine.yaml").write_text(CONFIG)
    parent = PROFILE.replace("[C]", "[P]") + 'time = "02:00:00"\nmounts = ["/data:/data"]\n'
    (tmp_path / "env.toml").write_text(parent + '\n[C]\nextends = "P"\nnodes = 2\ncpus_per_task = 8\ntime = "03:00:00"\n')
    return tmp_path


def compiled(folder: Path, arguments: Arguments = OVERRIDE) -> Compiled:
    env = profiles.load(folder / "env.toml")
    return compiling.compile_config(folder / "mine.yaml", env, profiles.get(env, "C"), arguments, registry)


@pytest.mark.parametrize("arguments", [OVERRIDE, CHOSEN])
def test_every_leaf_has_an_origin_and_the_last_one_has_its_value(arguments: Arguments, folder: Path) -> None:
    done = compiled(folder, arguments)
    found = dict(leaves(done.config))
    assert set(done.keys) == set(found)
    for key, value in found.items():
        assert done.keys[key], key
        assert done.keys[key][-1].value == value, key


def changed(line: str) -> str | None:
    """The line with another value in it, of the same kind; None for one that holds none."""
    head, colon, value = line.partition(": ") if ": " in line else (line[: len(line) - len(line.lstrip(" -"))], "", line.lstrip(" -"))
    if " = " in line:
        head, colon, value = line.partition(" = ")
    value = value.partition("  #")[0].partition(" # ")[0].strip()
    if not value or value in ("{}", "|", ">-", "???", "haproxy"):
        return None
    for old, new in (
        (r'\["/data:/data"\]', '["/data:/other"]'),
        (r'"\d+:00:00"', '"05:00:00"'),
        (r"\d\d:00:00", "'05:00:00'"),
        (r'"/[^"]*"', '"/other"'),
        (r'"[^"]*"', '"other"'),
        (r"\d+", "2" if "_parallel_size" in line else "207"),
        (r"0\.\d+", "0.5"),
        (r"true", "false"),
        (r"null", "1" if "endpoint_readiness" in line else "other"),
        (r"gpu:8", "gpu:16"),
        (r"slurm|vllm", ""),
        (r"wandb", "mlflow"),
        (r"(hellaswag|openbookqa|adlr_mmlu)", "adlr_winogrande_5_shot"),
        (r"/\S*", "/other"),
        (r"\$\{execution.num_nodes\}", "9"),
        (r"\$\{.*\}", "other"),
        (r"[\w.:/-]+", "other"),
        (r"(--\w+|vllm serve) ?.*", r"\1 --other"),
    ):
        if re.fullmatch(old, value):
            return head + colon + re.sub(old, new, value) if new else None
    return None


@pytest.mark.slow
def test_changing_the_line_that_an_origin_names_changes_the_value(folder: Path) -> None:
    plain = Arguments()  # an override would only make each of many rounds longer
    before = compiled(folder, plain)
    checked, dull = set(), []
    for key, history in before.keys.items():
        found = re.match(r"(\S+\.(?:yaml|toml)):(\d+)", history[-1].set_by)
        if not found or key.startswith("run.env."):
            continue
        path = Path(found[1]) if Path(found[1]).is_absolute() else Path.cwd() / found[1]
        if not path.is_relative_to(folder):
            continue
        text = path.read_text()
        lines = text.splitlines()
        new = changed(lines[int(found[2]) - 1])
        if new is None:
            continue
        lines[int(found[2]) - 1] = new
        path.write_text("\n".join(lines) + "\n")
        try:
            after = dict(leaves(compiled(folder, plain).config))
        finally:
            path.write_text(text)
        if after.get(key) == history[-1].value:
            dull.append(f"{key}: {history[-1].set_by}: {new}")
        checked.add(key)
    assert dull == []
    assert len(checked) > 30, checked


def test_the_origins_of_chosen_tasks_are_the_lines_where_they_stand(folder: Path) -> None:
    keys = compiled(folder, CHOSEN).keys
    line = CONFIG.splitlines().index("    - name: openbookqa") + 1
    assert keys["evaluation.tasks.0.name"][-1].set_by == f"{folder}/mine.yaml:{line}"
    assert keys["evaluation.tasks.0.nemo_evaluator_config.config.params.limit_samples"][-1].set_by == f"{folder}/mine.yaml:{line + 4}"
    assert keys["evaluation.tasks.1.name"][-1].set_by == f"{folder}/mine.yaml:{line + 5}"


def test_all_places_are_named_in_the_order_in_which_they_win(folder: Path) -> None:
    keys = compiled(folder).keys
    assert [origin.value for origin in keys["deployment.port"]] == [8000, 8001]
    assert [origin.set_by for origin in keys["deployment.port"]][1] == "SET deployment.port"
    assert keys["execution.walltime"][-1].set_by.endswith("env.toml:20 [C]")
    assert keys["execution.account"][-1].set_by.endswith("env.toml:8 [P]")
    assert keys["execution.partition"][-1].set_by.startswith(f"{folder}/mine.yaml:6 (${{run.env.partition}}, ")
    assert keys["execution.partition"][-1].set_by.endswith("env.toml:9 [P])")


def test_an_override_that_sets_a_mapping_or_list_is_the_origin_of_all_that_is_in_it(tmp_path: Path) -> None:
    done = compile_text(tmp_path, SLURM, overrides=["deployment.endpoints={health: /up}", "evaluation.tasks=[{name: openbookqa}]"])
    assert done.keys["deployment.endpoints.health"][-1].set_by == "SET deployment.endpoints"
    assert done.keys["deployment.endpoints.chat"][-1].set_by.endswith("vllm.yaml:29")
    assert done.keys["evaluation.tasks.0.name"][-1].set_by == "SET evaluation.tasks"


def test_where_a_config_lets_its_defaults_win_the_origin_is_theirs(tmp_path: Path) -> None:
    text = SLURM.replace("  - _self_\n", "").replace("defaults:\n", "defaults:\n  - _self_\n")
    text = text.replace("{checkpoint_path", "{port: 1, checkpoint_path")
    done = compile_text(tmp_path, text, overrides=["deployment.checkpoint_path=/c", "deployment.served_model_name=m", *EXECUTION])
    assert done.config["deployment"]["port"] == 8000
    assert done.keys["deployment.port"][-1].set_by.endswith("vllm.yaml:20")


EXECUTION = ["execution.hostname=h", "execution.account=a", "execution.output_dir=/o"]


def test_the_name_of_a_source_leads_back_to_it(tmp_path: Path) -> None:
    from helpers.config.config_files import launcher_configs

    for path in (launcher_configs() / "deployment" / "vllm.yaml", ROOT / "configs" / "local.yaml", tmp_path / "x.yaml"):
        assert source_path(source_name(path)) == path


def test_keys_with_dots_in_them_keep_their_origin(tmp_path: Path) -> None:
    text = SLURM.replace("{hostname", "{mounts: {deployment: {/data/v1.0: '/x'}}, hostname")
    keys = compile_text(tmp_path, text).keys
    assert keys["execution.mounts.deployment./data/v1.0"][-1].set_by == f"{tmp_path}/mine.yaml:6"


def test_origins_are_plain_data(folder: Path) -> None:
    assert yaml.safe_dump({key: [vars(one) for one in history] for key, history in compiled(folder).keys.items()})
