"""Old forms become those that the launcher takes, each with a notice; a secret is refused, and shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiled import SLURM, at, compile_text, launcher_dry_run
from helpers.common.errors import BadInput
from helpers.config import translating

SECRET = "hf_" + "abcdefghijklmnopqrstuvwxyz"


def with_lines(text: str, **sections: str) -> str:
    """SLURM with more in its sections, written as flow mappings."""
    for section, more in sections.items():
        text = text.replace(f"\n{section}: {{", f"\n{section}: {{{more}, ", 1)
    return text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("host:X", "host:X"),
        ("lit:a b", "lit:a b"),
        ("runtime:X", "runtime:X"),
        ("HF_HOME", "host:HF_HOME"),
        ("$HF_HOME", "host:HF_HOME"),
        ("${oc.env:HF_HOME}", "host:HF_HOME"),
        ("${oc.env:HF_HOME,/tmp}", "host:HF_HOME"),
        ("/a/path", "lit:/a/path"),
        ("two words", "lit:two words"),
        ("0", "lit:0"),
        ("", "lit:"),
        (5, "lit:5"),
        (0.5, "lit:0.5"),
        (True, "lit:true"),
        ("${run.env.cache}", "${run.env.cache}"),
    ],
)
def test_a_variable_gets_its_prefix_by_the_launchers_own_rules(value: object, expected: str) -> None:
    assert translating.prefixed("CACHE", value, "here") == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", SECRET),
        ("HF_TOKEN", f"lit:{SECRET}"),
        ("HF_TOKEN", f"host:{SECRET}"),
        ("ANYTHING", f"Bearer {SECRET}"),
        ("WANDB_API_KEY", "lit:" + "0123456789abcdef" * 2 + "01234567"),
        ("OPENAI_API_KEY", "correct horse battery"),
        ("MY_PASSWORD", "swordfish"),
        ("SECRET", "${oc.env:SECRET}-and-more"),
        ("A", "${oc.decode:${oc.env:B}}"),
        ("A", None),
        ("A", {"b": "swordfish"}),
        ("A", ["swordfish"]),
    ],
)
def test_what_cannot_be_translated_is_refused_without_its_value(name: str, value: object) -> None:
    with pytest.raises(BadInput) as caught:
        translating.prefixed(name, value, "mine.yaml:3: env_vars.X")
    message = str(caught.value)
    assert message.startswith("mine.yaml:3: env_vars.X: ")
    assert "host:" in message
    assert not any(word in message for word in (SECRET, "swordfish", "horse", "0123456789abcdef"))


OLD_FORMS = {
    "execution.env_vars of the deployment": (
        {"execution": "env_vars: {deployment: {CACHE: /c}, evaluation: {B: HF_HOME}, export: {C: 'lit:x'}}"},
        {"deployment.env_vars.CACHE": "lit:/c", "evaluation.env_vars.B": "host:HF_HOME", "export.env_vars.C": "lit:x"},
        ["execution.env_vars.deployment is now deployment.env_vars", "execution.env_vars.evaluation is now evaluation.env_vars"],
    ),
    "execution.env_vars of everything": (
        {"execution": "env_vars: {CACHE: $HF_HOME}"},
        {"env_vars.CACHE": "host:HF_HOME"},
        ["execution.env_vars.CACHE is now env_vars", "env_vars.CACHE: $HF_HOME has no prefix; it is read as host:HF_HOME"],
    ),
    "multiple_instances": (
        {"deployment": "multiple_instances: true", "execution": "num_nodes: 4"},
        {"execution.num_instances": 4},
        ["deployment.multiple_instances is now execution.num_instances (4)"],
    ),
    "no multiple_instances": (
        {"deployment": "multiple_instances: false"},
        {"execution.num_instances": 1},
        ["deployment.multiple_instances is now execution.num_instances (1)"],
    ),
    "health_check_path": (
        {"deployment": "health_check_path: /up"},
        {"deployment.endpoints.health": "/up", "deployment.endpoints.chat": "/v1/chat/completions"},
        ["deployment.health_check_path is now deployment.endpoints.health"],
    ),
    "evaluation.overrides": (
        {"evaluation": "overrides: {config.params.limit_samples: 3}"},
        {"evaluation.nemo_evaluator_config.config.params.limit_samples": 3},
        ["evaluation.overrides is now evaluation.nemo_evaluator_config"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", OLD_FORMS)
def test_an_old_form_is_translated_with_a_notice_that_names_its_line_and_the_launcher_takes_the_result(
    form: str, tmp_path: Path, clean_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", "/hf")
    sections, values, notices = OLD_FORMS[form]
    done = compile_text(tmp_path, with_lines(SLURM, **sections))
    for key, value in values.items():
        assert at(done.config, key) == value
        if "(as " in done.keys[key][-1].set_by:
            assert done.keys[key][-1].set_by.startswith(f"{tmp_path}/mine.yaml:")
    for text in notices:
        assert any(notice.startswith(f"{tmp_path}/mine.yaml:") and text in notice for notice in done.notices), done.notices
    launcher_dry_run(done.config)


def test_every_moved_value_says_where_it_stood(tmp_path: Path) -> None:
    sections, values, _ = OLD_FORMS["execution.env_vars of the deployment"]
    keys = compile_text(tmp_path, with_lines(SLURM, **sections)).keys
    assert {key: keys[key][-1].set_by for key in values} == {
        "deployment.env_vars.CACHE": f"{tmp_path}/mine.yaml:6 (as execution.env_vars.deployment.CACHE)",
        "evaluation.env_vars.B": f"{tmp_path}/mine.yaml:6 (as execution.env_vars.evaluation.B)",
        "export.env_vars.C": f"{tmp_path}/mine.yaml:6 (as execution.env_vars.export.C)",
    }


def test_the_new_place_counts_before_the_old_one(tmp_path: Path) -> None:
    text = with_lines(SLURM, execution="env_vars: {deployment: {A: 'lit:old'}}", deployment="env_vars: {A: 'lit:new'}")
    assert compile_text(tmp_path, text).config["deployment"]["env_vars"] == {"A": "lit:new"}


@pytest.mark.slow
@pytest.mark.parametrize("section", ["deployment", "evaluation"])
def test_sections_that_are_null_take_old_forms_too(section: str, tmp_path: Path) -> None:
    text = with_lines(SLURM, execution=f"env_vars: {{{section}: {{A: 'lit:x'}}}}", **{section: "env_vars: null"})
    assert at(compile_text(tmp_path, text).config, f"{section}.env_vars") == {"A": "lit:x"}


@pytest.mark.parametrize(
    "key", ["env_vars", "deployment.env_vars", "evaluation.env_vars", "evaluation.tasks.0.env_vars", "execution.auto_export.env_vars"]
)
def test_variables_get_their_prefix_in_every_section(key: str, tmp_path: Path) -> None:
    done = compile_text(tmp_path, SLURM, overrides=[f"{key}.CACHE=/a"])
    assert at(done.config, f"{key}.CACHE") == "lit:/a"
    assert any(f"{key}.CACHE: … has no prefix; it is read as lit:…" in notice for notice in done.notices)


def test_a_value_that_another_key_gives_is_prefixed_once_it_is_known(tmp_path: Path) -> None:
    done = compile_text(
        tmp_path, SLURM + "mine: {a: /x, b: 'host:HF_HOME'}\nenv_vars: {A: '${mine.a}', B: '${mine.b}', C: 'lit:${mine.a}'}\n"
    )
    assert done.config["env_vars"] == {"A": "lit:/x", "B": "host:HF_HOME", "C": "lit:/x"}


@pytest.mark.parametrize("where", ["config", "SET"])
def test_a_secret_written_out_is_refused_and_in_no_message(where: str, tmp_path: Path) -> None:
    text = with_lines(SLURM, deployment=f"env_vars: {{HF_TOKEN: {SECRET}}}") if where == "config" else SLURM
    with pytest.raises(BadInput) as caught:
        compile_text(tmp_path, text, overrides=[] if where == "config" else [f"deployment.env_vars.HF_TOKEN={SECRET}"])
    assert SECRET not in str(caught.value)
    assert "deployment.env_vars.HF_TOKEN" in str(caught.value)


@pytest.mark.parametrize("key", ["deployment.extra_args", "+export.wandb.note", "+run.key"])
def test_a_secret_anywhere_else_is_refused_too(key: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="this is a secret") as caught:
        compile_text(tmp_path, SLURM, overrides=[f"{key}=--api-key {SECRET}"])
    assert SECRET not in str(caught.value)


def test_no_notice_shows_a_text_that_was_given_to_a_variable(tmp_path: Path) -> None:
    text = with_lines(SLURM, execution="env_vars: {deployment: {A: my-value-1}, B: 'lit:my-value-2'}")
    done = compile_text(tmp_path, text, overrides=["evaluation.env_vars.C=my-value-3"])
    assert done.notices
    assert not any("my-value" in notice for notice in done.notices)
