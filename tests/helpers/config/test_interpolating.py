"""Interpolations: all resolved but ${art:…}; what cannot be resolved names its key, line and fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compiled import PROFILE, SLURM, compile_text
from helpers.common.errors import BadInput
from helpers.config import interpolating


def value_of(folder: Path, text: str, **options: Any) -> Any:
    return compile_text(folder, SLURM + f"export: {{wandb: {{project: {text!r}}}}}\n", **options).config["export"]["wandb"]["project"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${oc.env:EM_SET}", "set"),
        ("${oc.env:EM_UNSET,a default}", "a default"),
        ("${oc.env:EM_UNSET,null}", None),
        ("x-${deployment.port}-${execution.gres}", "x-8000-gpu:8"),
        ("${deployment.endpoints.health}", "/health"),
        ("${.entity}", "e"),
        ("${..mlflow.experiment_name}", "m"),
        ("${art:model,path}/sub", "${art:model,path}/sub"),
        ("\\${not.a.key}", "${not.a.key}"),
        ("$HOME and $(pwd)", "$HOME and $(pwd)"),
        ("${select_not_null:deployment.hf_model_handle,/checkpoint}", "/checkpoint"),
        ("${select_not_null:deployment.checkpoint_path,/checkpoint}", "/c"),
    ],
)
def test_everything_is_resolved_but_artifacts(text: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EM_SET", "set")
    body = (
        SLURM
        + f"run: {{model: 'rl:v1'}}\nexport: {{mlflow: {{experiment_name: m}}, wandb: {{entity: e, project: {text!r}}}}}\n".replace(
            "\\\\", "\\"
        )
    )
    assert compile_text(tmp_path, body).config["export"]["wandb"]["project"] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${oc.env:EM_UNSET}", r"the environment variable EM_UNSET is not set; set it, or write \$\{oc\.env:EM_UNSET,DEFAULT\}"),
        ("${nosuch:1}", r"there is no resolver \$\{nosuch:…\}; there are art, "),
        ("${oc.evn:X}", r"there is no resolver \$\{oc\.evn:…\} \(did you mean oc\.env\?\)"),
        ("${deployment.prt}", r"\$\{deployment\.prt\}: the config has no such key \(did you mean deployment\.port\?\)"),
        ("${run.env.host}", r"run\.env comes from a profile: give PROFILE="),
        ("${export.wandb.project}", "form a cycle"),
        ("${oc.env:MY_API_KEY}", r"\$\{oc\.env:MY_API_KEY\} would write a secret to files; write `MY_API_KEY: host:MY_API_KEY`"),
        ("${", r"write \$\{key\}, or"),
        ("${a b}", r"write \$\{key\}, or"),
    ],
)
def test_what_cannot_be_resolved_names_key_line_and_fix(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "swordfish")
    with pytest.raises(BadInput, match=rf"mine\.yaml:9: export\.wandb\.project: .*{message}") as caught:
        value_of(tmp_path, text)
    assert "swordfish" not in str(caught.value)


def test_a_field_that_the_profile_lacks_is_named_with_the_profile(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\$\{run\.env\.hots\}: profile C has no such field \(did you mean run\.env\.host\?\)"):
        value_of(tmp_path, "${run.env.hots}", env=PROFILE, profile="C")


@pytest.mark.parametrize("value", ["x", "", 0, False, None])
@pytest.mark.parametrize("key", ["a.b", "a.nosuch", "nosuch.at.all"])
@pytest.mark.parametrize("default", ["/checkpoint", "8", "null", "two words", ""])
def test_select_not_null_is_the_launchers(value: Any, key: str, default: str) -> None:
    from nemo_evaluator_launcher.configs import select_not_null
    from omegaconf import OmegaConf

    text = f"${{select_not_null:{key},{default}}}"
    raw = {"a": {"b": value}, "c": text}
    OmegaConf.register_new_resolver("select_not_null", select_not_null, use_cache=False, replace=True)
    theirs = OmegaConf.to_container(OmegaConf.create(raw), resolve=True)
    OmegaConf.clear_resolver("select_not_null")
    assert interpolating.resolve(raw, lambda key: key, None) == theirs
    assert not OmegaConf.has_resolver("select_not_null")  # the launcher, imported later, registers its own
    OmegaConf.register_new_resolver("select_not_null", select_not_null, use_cache=False)
