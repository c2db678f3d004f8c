"""What is needed to repeat a run, and to say whether two runs measured the same: the record in results.json.

Some of it is the run's (versions, config, model), some a task's (image, parameters). Whatever is not known is null.
"""

from pathlib import Path
from typing import Any

from helpers.common import files
from helpers.executors import job_folder
from helpers.executors.validity import LIMITS

# What a parameter is that names the model's own folder, which another version of the model has elsewhere.
OWN = "(the model's own)"
# Interceptors of nemo-evaluator's proxy that change neither a request nor an answer.
OBSERVERS = {"caching", "endpoint", "response_stats", "progress_tracking", "request_logging", "response_logging", "raise_client_errors"}


def of_run(run: Path) -> dict[str, Any]:
    """The record of a run, from the files of its folder, which may be missing. Raises BadInput when one was edited."""
    request = files.read_json(run / "request.json", "request") if (run / "request.json").exists() else {}
    images = files.read_json(run / "images.json", "images")["images"] if (run / "images.json").exists() else []
    models = files.read_json(run / "model.json", "model")["models"] if (run / "model.json").exists() else {}
    config, seal, _ = files.read_yaml(run / "config.yaml", "config") if (run / "config.yaml").exists() else ({}, None, {})
    deployment = config.get("deployment") or {}
    limits = (config.get("run") or {}).get("validity") or {}
    endpoint = (config.get("target") or {}).get("api_endpoint") or {}
    return {
        "versions": request.get("versions") or {},
        "config": seal,
        "profile": request.get("profile"),
        "git": request.get("git"),
        "model": {
            "name": deployment.get("served_model_name") or endpoint.get("model_id"),
            "path": models.get("model", {}).get("path") or deployment.get("checkpoint_path") or deployment.get("hf_model_handle"),
        },
        "limits": {key: usual if limits.get(key) is None else limits[key] for key, usual in LIMITS.items()},
        "images": [{"users": row["users"], "reference": row["reference"], "digest": row["digest"]} for row in images],
    }


def of_task(task: str, artifacts: Path, run: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """The record of one task: from its folder of artifacts, the run's record, and `result`, the content of its results.yml."""
    image: dict[str, Any] = next((one for one in run["images"] if f"task {task}" in one["users"]), {})
    endpoint = _inner(result, "target", "api_endpoint")
    params = _neutral(_inner(result, "config", "params"), run["model"]["path"])
    extra = _inner(params, "extra")
    interceptors = _inner(endpoint, "adapter_config").get("interceptors")
    said = job_folder.of_lm_eval(artifacts)
    return {
        "task_versions": said.get("versions") or {},
        "evaluator": _inner(result, "metadata", "versioning").get("nemo_evaluator"),
        "image": image.get("reference"),
        "digest": image.get("digest"),
        "endpoint_type": endpoint.get("type"),
        "few_shot": said.get("n-shot") or extra.get("num_fewshot"),
        "prompt": {key: said[key] for key in ("chat_template_sha", "system_instruction_sha", "fewshot_as_multiturn") if said.get(key)},
        "tokenizer": extra.get("tokenizer"),
        "params": {key: value for key, value in (params | extra).items() if key not in ("extra", "task", "num_fewshot", "tokenizer")},
        "adapter": {
            str(one["name"]): one.get("config")
            for one in (interceptors if isinstance(interceptors, list) else [])
            if isinstance(one, dict) and one.get("enabled") and one.get("name") not in OBSERVERS
        },
    }


def _neutral(value: Any, own: str | None) -> Any:
    """The same with OWN in place of each path of the model."""
    if isinstance(value, dict):
        return {key: _neutral(inner, own) for key, inner in value.items()}
    return OWN if own and isinstance(value, str) and f"{value}/".startswith(f"{own.rstrip('/')}/") else value


def _inner(data: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}
