"""The tokenizer that a task needs: where it comes from when the config names none.

A task that scores log-likelihoods (81 of the catalogue) and a few others split the text themselves, with the tokenizer of the model. The
catalogue's entries name none, and the harness then stops after the deployment: "Tokenizer is required for loglikelihood tasks".
"""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from helpers.common.errors import BadInput
from helpers.config.catalogue import Task
from helpers.config.tracing import Trace

PARAMS = "nemo_evaluator_config.config.params.extra"
BACKEND = "huggingface"
KEYS = ("tokenizer", "ruler.tokenizer_path")
NO_FOLDER = (".gguf", ".nemo", ".safetensors", ".bin", ".pt")  # one file is no folder with a tokenizer in it


def apply(config: dict[str, Any], definitions: Sequence[Task], trace: Trace) -> None:
    """Give each task the tokenizer that it needs: what the config says wins, else the model's own.

    Raises BadInput, with the SET to give, for tasks whose tokenizer cannot be derived.
    """
    source, why = _of_model(config["deployment"])
    lacking: list[int] = []
    for index, (entry, task) in enumerate(zip(config["evaluation"]["tasks"], definitions, strict=True)):
        if not task.tokenizer:
            continue
        if not _given(config, entry, task.tokenizer):
            if not source:
                lacking.append(index)
                continue
            _set(entry, index, task.tokenizer, source, why, trace)
        if task.logprobs and not _given(config, entry, "tokenizer_backend"):
            # The harness ignores the tokenizer when its backend is None, which is the default.
            _set(entry, index, "tokenizer_backend", BACKEND, "what loads a tokenizer from a folder or from the hub", trace)
    if lacking:
        names = ", ".join(definitions[index].name for index in lacking)
        verb = "tasks need" if len(lacking) > 1 else "task needs"
        keys = dict.fromkeys(definitions[index].tokenizer for index in lacking)
        settings = " ".join(f"evaluation.{PARAMS}.{key}=NAME" for key in keys)
        place = trace.place(f"evaluation.tasks.{lacking[0]}.name")
        fix = f'give SET="{settings}", with a name on the Hugging Face hub or a folder that the evaluation can read'
        raise BadInput(f"{place}: {verb} the model's tokenizer, which {why}: {names}; {fix}")


def _of_model(deployment: Mapping[str, Any]) -> tuple[str, str]:
    """The tokenizer of the model that is deployed, and where it comes from; or an empty text, and why it is not known."""
    if deployment["type"] == "none":
        return "", "a hosted endpoint does not give"
    if deployment.get("hf_model_handle"):
        return str(deployment["hf_model_handle"]), "deployment.hf_model_handle"
    path = str(deployment.get("checkpoint_path") or "")
    if not path:
        return "", "a deployment without a checkpoint does not give"
    if path.endswith(NO_FOLDER):
        return "", f"the file {posixpath.basename(path)} does not give"
    # The step that resolves models looks whether the tokenizer is in the folder itself, or in `tokenizer` in it.
    return path, "the checkpoint's own tokenizer"


def _given(config: Mapping[str, Any], entry: Mapping[str, Any], key: str) -> Any:
    """The value of a key below params.extra that counts for a task: its own, else that of all tasks."""
    for holder in (entry, config["evaluation"]):
        node: Any = holder
        for part in f"{PARAMS}.{key}".split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        if node is not None:
            return node
    return None


def _set(entry: dict[str, Any], index: int, key: str, value: str, why: str, trace: Trace) -> None:
    node = entry
    *parents, last = f"{PARAMS}.{key}".split(".")
    for part in parents:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
    node[last] = value
    trace.add(f"evaluation.tasks.{index}.{PARAMS}.{key}", value, f"default: {why}")


def of_checkpoint(config: Mapping[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """The tokenizers of a config that are the checkpoint's own folder: for each the mapping that holds it, and its key there."""
    path, found = config["deployment"].get("checkpoint_path"), []
    for holder in (config["evaluation"], *config["evaluation"]["tasks"]):
        for key in KEYS:
            node: Any = holder
            *parents, last = f"{PARAMS}.{key}".split(".")
            for part in parents:
                node = node.get(part) if isinstance(node, Mapping) else None
            if path and isinstance(node, dict) and node.get(last) == path:
                found.append((node, last))
    return found


def folders(data: Mapping[str, Any]) -> list[str]:
    """The absolute paths that tasks of a launcher config read a tokenizer from, each once."""
    found = [_given(data, entry, key) for entry in data["evaluation"]["tasks"] for key in KEYS]
    return list(dict.fromkeys(str(path) for path in found if str(path).startswith("/")))
