"""Which tasks a run has, and whether the endpoint serves what they ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compiled import HOSTED, SLURM, compile_text
from helpers.common.errors import BadInput
from helpers.config import catalogue, tasks

ENTRIES: list[dict[str, Any]] = [
    {"name": "hellaswag"},
    {"name": "lm-evaluation-harness.ifeval"},
    {"name": "openbookqa", "env_vars": {}},
    {"name": "hellaswag", "nemo_evaluator_config": {"config": {}}},
    {"name": "mine.own", "container": "my/image:1"},
]


def choose(asked: list[str], entries: list[dict[str, Any]] = ENTRIES) -> tasks.Chosen:
    return tasks.choose(entries, asked, "mine.yaml", lambda index: f"mine.yaml:{index}")


@pytest.mark.parametrize(
    ("asked", "indices"),
    [
        ([], [0, 1, 2, 3, 4]),
        (["hellaswag"], [0, 3]),
        (["hellaswag.3"], [3]),
        (["hellaswag.0", "hellaswag.3"], [0, 3]),
        (["lm-evaluation-harness.hellaswag"], [0, 3]),
        (["lm-evaluation-harness.hellaswag.3"], [3]),
        (["ifeval"], [1]),
        (["ifeval.1"], [1]),
        (["lm-evaluation-harness.ifeval"], [1]),
        (["openbookqa", "hellaswag"], [0, 2, 3]),
        (["openbookqa", "openbookqa"], [2]),
        (["own"], [4]),
        (["mine.own"], [4]),
        (["openbookqa", "gsm8k"], [2, None]),
        (["gsm8k", "lm-evaluation-harness.gsm8k", "hellaswag.0"], [0, None]),
        (["codec.ifeval"], [None]),
    ],
)
def test_names_choose_entries_in_the_configs_order_and_add_what_it_lacks(asked: list[str], indices: list[int | None]) -> None:
    chosen = choose(asked)
    assert chosen.indices == indices
    assert [entry for entry, index in zip(chosen.entries, indices, strict=True) if index is not None] == [
        ENTRIES[index] for index in indices if index is not None
    ]
    assert len(chosen.definitions) == len(indices)


def test_what_is_added_is_reported() -> None:
    assert choose(["gsm8k"]).notices == ["task gsm8k is not in mine.yaml: added from the catalogue (lm-evaluation-harness.gsm8k)"]
    assert choose(["hellaswag"]).notices == []


BOTH = [{"name": "codec.ifeval"}, {"name": "lm-evaluation-harness.ifeval"}]


@pytest.mark.parametrize(
    ("asked", "entries", "message"),
    [
        (["helaswag"], ENTRIES, r"TASKS: there is no task 'helaswag' \(did you mean hellaswag\?\)"),
        (["mine.on"], ENTRIES, r"TASKS: there is no task 'mine.on' \(did you mean"),
        (["hellaswag.1"], ENTRIES, "TASKS: the config has no task hellaswag.1; it has hellaswag.0, hellaswag.3"),
        (["ifeval"], ENTRIES[:1], r"TASKS: 2 harnesses have a task ifeval; name one: lm-evaluation-harness\.ifeval, codec\.ifeval"),
        (
            ["ifeval"],
            BOTH,
            r"TASKS: 2 harnesses in the config have a task ifeval; name one: codec\.ifeval, lm-evaluation-harness\.ifeval",
        ),
        (["codec.hellaswag"], ENTRIES, "TASKS: there is no task 'codec.hellaswag'"),
        ([], [], r'mine\.yaml: evaluation\.tasks is empty; name tasks there, or give TASKS="…"'),
        ([], [{"name": "helaswag"}], r"mine\.yaml:0: there is no task 'helaswag' \(did you mean hellaswag\?\)"),
        ([], [{"name": "ifeval"}], r"mine\.yaml:0: 2 harnesses have a task ifeval"),
    ],
)
def test_a_name_that_means_nothing_or_too_much_is_refused(asked: list[str], entries: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        choose(asked, entries)


def test_an_index_tells_tasks_of_two_harnesses_apart() -> None:
    assert choose(["ifeval.1"], BOTH).indices == [1]


def test_an_entry_that_is_not_chosen_need_not_be_known() -> None:
    assert choose(["hellaswag"], [{"name": "nobody-knows-this"}, {"name": "hellaswag"}]).indices == [1]


def with_task(entry: str, text: str = SLURM) -> str:
    return text.replace("{name: hellaswag}", entry).replace("{name: capitals}", entry)


@pytest.mark.parametrize(
    ("task", "overrides", "message"),
    [
        ("{name: hellaswag}", ["~deployment.endpoints.completions"], "task hellaswag needs log-likelihoods .* from a completions endpoint"),
        ("{name: ns_gpqa}", ["~deployment.endpoints.chat"], "task ns_gpqa needs a chat endpoint, and this endpoint serves only"),
        ("{name: hellaswag, endpoint_type: chat}", ["~deployment.endpoints.chat"], "task hellaswag needs a chat endpoint"),
        ("{name: hellaswag, endpoint_type: chat}", [], None),
        ("{name: ns_gpqa, endpoint_type: completions}", ["~deployment.endpoints.chat"], None),
        ("{name: my.task, container: 'i:1'}", ["~deployment.endpoints.chat"], "task my.task needs a chat endpoint"),
        ("{name: my.task, container: 'i:1', endpoint_type: completions}", ["~deployment.endpoints.chat"], None),
    ],
)
def test_a_deployment_must_serve_what_its_tasks_ask_for(
    task: str, overrides: list[str], message: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tasks.TRUST, "1")
    if message is None:
        assert compile_text(tmp_path, with_task(task), overrides=overrides).definitions
        return
    with pytest.raises(BadInput, match=rf"mine\.yaml:8: {message}"):
        compile_text(tmp_path, with_task(task), overrides=overrides)


@pytest.mark.parametrize(
    ("url", "task", "is_served"),
    [
        ("http://h/v1/chat/completions", "ns_gpqa", True),
        ("http://h/v1/chat/completions/", "ns_gpqa", True),
        ("http://h/v1/chat/completions?x=1", "hellaswag", False),
        ("http://h/v1/completions", "adlr_mmlu", True),
        ("http://h/v1/completions", "ns_gpqa", False),
        ("http://h/v1/embeddings", "ns_gpqa", False),
        ("http://h/anything", "adlr_mmlu", True),
        ("http://h/v1/chat/completions", "mmmu_judge", True),
    ],
)
def test_a_hosted_endpoint_serves_what_its_url_ends_with(url: str, task: str, is_served: bool, tmp_path: Path) -> None:
    if task == "mmmu_judge":  # any that looks at images
        task = next(one.full_name for one in catalogue.load().values() if one.endpoint_types == ("vlm",))
    text = with_task(f"{{name: {task}}}", HOSTED).replace("type: process", "type: local, output_dir: o")
    text = text.replace("http://h/v1/chat/completions", f"'{url}'")
    if is_served:
        assert compile_text(tmp_path, text).definitions
    else:
        with pytest.raises(BadInput, match="needs "):
            compile_text(tmp_path, text)


def test_a_task_that_asks_another_endpoint_is_not_held_to_this_one(tmp_path: Path) -> None:
    task = "{name: ns_gpqa, nemo_evaluator_config: {target: {api_endpoint: {url: http://other/v1/chat/completions}}}}"
    assert compile_text(tmp_path, with_task(task), overrides=["~deployment.endpoints.chat"]).definitions


def test_a_harness_that_is_not_installed_here_needs_containers(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput,
        match=r"mine\.yaml:4: task ns_gpqa: .* not installed on this machine; choose a PROFILE .* \(docker, slurm\)",
    ):
        compile_text(tmp_path, with_task("{name: ns_gpqa}", HOSTED))


def test_a_task_that_the_launcher_does_not_know_needs_consent_before_anything_is_contacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = with_task("{name: my.task, container: 'i:1', endpoint_type: completions}")
    monkeypatch.delenv(tasks.TRUST, raising=False)
    with pytest.raises(BadInput, match=rf"mine\.yaml:8: task my\.task: the catalogue has no such task.*from i:1.*`export {tasks.TRUST}=1`"):
        compile_text(tmp_path, text)
    assert compile_text(tmp_path, text.replace("i:1", "/images/own.sqsh")).definitions, "somebody put the file there"
    monkeypatch.setenv(tasks.TRUST, "1")
    assert compile_text(tmp_path, text).definitions


def test_all_ambiguous_names_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"mine\.yaml:8: several harnesses have these tasks.*: ifeval \(.* or .*\); mmlu \(.*\)$"):
        compile_text(tmp_path, with_task("{name: ifeval}, {name: hellaswag}, {name: mmlu}"))
    with pytest.raises(BadInput, match=r"TASKS: several harnesses have these tasks.*: ifeval \(.*\); mmlu \(.*\)$"):
        compile_text(tmp_path, SLURM, tasks=["ifeval", "hellaswag", "mmlu"])


def test_a_name_without_a_near_one_may_be_newer_than_the_catalogue(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no task 'zzzz'; .*; if a newer container has it, name that container .*\(`container:`"):
        compile_text(tmp_path, with_task("{name: zzzz}"))


def test_a_config_of_a_newer_evaluator_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"mine\.yaml: services and benchmarks: this is a config of a newer nemo-evaluator"):
        compile_text(tmp_path, "services: {}\nbenchmarks: []\n")


# ---- Data sets on the Hugging Face hub -----------------------------------------------------------------------------------------------


def test_the_hubs_variables_that_are_set_here_reach_the_containers(tmp_path: Path) -> None:
    assert "env_vars" not in compile_text(tmp_path, SLURM).config
    done = compile_text(tmp_path, SLURM, variables=("HF_TOKEN", "HF_HOME", "HOME"))
    assert done.config["env_vars"] == {"HF_TOKEN": "host:HF_TOKEN", "HF_HOME": "host:HF_HOME"}
    assert done.keys["env_vars.HF_TOKEN"][-1].set_by == "default: HF_TOKEN is set here"
    own = SLURM + "env_vars: {HF_TOKEN: 'host:OTHER'}\n"
    assert compile_text(tmp_path, own, variables=("HF_TOKEN",)).config["env_vars"] == {"HF_TOKEN": "host:OTHER"}


def test_a_gated_data_set_is_named_unless_a_token_is_there(tmp_path: Path) -> None:
    text = with_task("{name: lm-evaluation-harness.gpqa}, {name: ns_hle}")
    notices = [one for one in compile_text(tmp_path, text).notices if "gated" in one]
    assert len(notices) == 2
    assert "gpqa is gated: https://huggingface.co/datasets/Idavidrein/gpqa; `export HF_TOKEN=…`" in notices[0]
    assert not [one for one in compile_text(tmp_path, text, variables=("HF_TOKEN",)).notices if "gated" in one]


def test_the_hub_access_of_each_task_is_known_or_said_to_be_unknown() -> None:
    found = {task.hub for task in catalogue.load().values()}
    assert found == {catalogue.PUBLIC, catalogue.UNKNOWN, catalogue.NONE, *catalogue.GATED.values()}
