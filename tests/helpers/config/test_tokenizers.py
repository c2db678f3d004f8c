"""helpers/config/tokenizers.py: each task that splits text itself gets the model's tokenizer, or is refused before anything is queued."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiled import HOSTED, SLURM, at, compile_text
from helpers.common.errors import BadInput
from helpers.config import catalogue, tokenizers
from helpers.config.tracing import Trace

EXTRA = "evaluation.tasks.0.nemo_evaluator_config.config.params.extra"
OF_ALL = f"evaluation.{tokenizers.PARAMS}"


def with_task(entry: str, text: str = SLURM) -> str:
    return text.replace("{name: hellaswag}", entry).replace("{name: capitals}", entry)


HOSTED_COMPLETIONS = HOSTED.replace("type: process", "type: local, output_dir: o").replace("/chat", "")


def test_the_81_log_likelihood_tasks_of_the_catalogue_and_the_25_whose_command_names_a_tokenizer_are_known() -> None:
    tasks = catalogue.load().values()
    assert sum(task.logprobs for task in tasks) == 81
    others = {task.harness for task in tasks if task.tokenizer and not task.logprobs}
    assert others == {"ruler", "genai_perf_eval", "nemo_skills"}
    assert sum(1 for task in tasks if task.tokenizer) == 106
    assert not catalogue.find("adlr_mmlu").tokenizer, "it generates text"


def test_the_tokenizer_is_the_checkpoints_own_and_the_origin_says_so(tmp_path: Path) -> None:
    done = compile_text(tmp_path, SLURM)
    assert at(done.config, EXTRA) == {"tokenizer": "/c", "tokenizer_backend": "huggingface"}
    assert done.keys[f"{EXTRA}.tokenizer"][-1].set_by == "default: the checkpoint's own tokenizer"
    assert done.keys[f"{EXTRA}.tokenizer_backend"][-1].set_by.startswith("default: ")


def test_a_task_that_generates_gets_none(tmp_path: Path) -> None:
    assert compile_text(tmp_path, with_task("{name: adlr_mmlu}")).config["evaluation"]["tasks"] == [{"name": "adlr_mmlu"}]


def test_a_model_of_the_hub_is_its_own_tokenizer(tmp_path: Path) -> None:
    text = SLURM.replace("checkpoint_path: /c", "hf_model_handle: org/model, checkpoint_path: null")
    assert at(compile_text(tmp_path, text).config, f"{EXTRA}.tokenizer") == "org/model"


@pytest.mark.parametrize("task", ["ruler-4k-completions", "genai_perf_generation_completions"])
def test_a_task_whose_command_names_a_tokenizer_gets_it_and_keeps_its_own_backend(task: str, tmp_path: Path) -> None:
    assert at(compile_text(tmp_path, with_task(f"{{name: {task}}}")).config, EXTRA) == {"tokenizer": "/c"}


def test_the_key_of_nemo_skills_ruler_is_another(tmp_path: Path) -> None:
    assert at(compile_text(tmp_path, with_task("{name: ns_ruler}")).config, EXTRA) == {"ruler": {"tokenizer_path": "/c"}}


@pytest.mark.parametrize("key", [OF_ALL, EXTRA])
def test_what_the_config_says_wins_and_gets_the_backend_that_it_needs(key: str, tmp_path: Path) -> None:
    config = compile_text(tmp_path, SLURM, overrides=[f"{key}.tokenizer=/elsewhere"]).config
    assert at(config, f"{key}.tokenizer") == "/elsewhere"
    assert "/c" not in str(config["evaluation"])
    assert at(config, f"{EXTRA}.tokenizer_backend") == "huggingface"
    config = compile_text(tmp_path, SLURM, overrides=[f"{key}.tokenizer_backend=tiktoken"]).config
    assert at(config, f"{EXTRA}.tokenizer") == "/c"
    assert at(config, f"{key}.tokenizer_backend") == "tiktoken"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (with_task("{name: hellaswag}, {name: arc_challenge}", HOSTED_COMPLETIONS), "a hosted endpoint does not give: hellaswag, arc_ch"),
        (SLURM.replace("/c,", "/models/tiny.gguf,"), r"the file tiny\.gguf does not give: hellaswag"),
        (
            SLURM.replace("vllm", "nim").replace("checkpoint_path: /c, ", "image: 'nim:1', "),
            "a deployment without a checkpoint does not give: hellaswag",
        ),
    ],
)
def test_what_cannot_be_derived_is_refused_with_the_set_to_give_which_then_works(text: str, why: str, tmp_path: Path) -> None:
    setting = f"{OF_ALL}.tokenizer=org/model"
    with pytest.raises(BadInput, match=rf"mine\.yaml:\d+: tasks? needs? the model's tokenizer, which {why}.*; give SET=\"{OF_ALL}") as info:
        compile_text(tmp_path, text)
    assert setting.replace("org/model", "NAME") in str(info.value)
    assert compile_text(tmp_path, text, overrides=[setting]).definitions


def test_of_each_task_of_the_catalogue_is_known_whether_it_lacks_a_tokenizer() -> None:
    deployed = {"type": "vllm", "checkpoint_path": "/c"}
    for task in catalogue.load().values():
        entry = {"name": task.full_name}
        config = {"deployment": deployed, "evaluation": {"tasks": [entry]}}
        tokenizers.apply(config, [task], Trace())
        assert tokenizers.folders(config) == (["/c"] if task.tokenizer else []), task.full_name
        hosted = {"deployment": {"type": "none"}, "evaluation": {"tasks": [{"name": task.full_name}]}}
        if task.tokenizer:
            with pytest.raises(BadInput, match=f"tokenizer, which a hosted endpoint does not give: {task.name}; give SET="):
                tokenizers.apply(hosted, [task], Trace())
        else:
            tokenizers.apply(hosted, [task], Trace())
