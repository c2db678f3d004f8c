"""The lineage of an evaluation in W&B: the evaluated model is the input of its run, the benchmark results are the output."""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from helpers.common import files
from helpers.common.errors import StepFailed
from helpers.models import wandb_artifacts

if TYPE_CHECKING:
    import wandb

TYPE = "evaluation"
# The key of a W&B run's config that is written last: a run that has it has the whole lineage.
DECLARED = "artifacts"


def declare(run: "wandb.Run", model: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Declare the input of a live W&B run (the models of model.json) and its output (an artifact of type `evaluation` with results.json).

    The same results make no new version. A model from a folder of manifests is no artifact of W&B, so only the run's config names it; an
    offline run names all of its models only there. Raises StepFailed for a model that W&B no longer has, Unreachable without an answer.
    """
    import wandb

    server, named = run.settings.base_url, results.get("artifacts", {})
    for one in model["models"].values():
        if one["backend"] != "wandb" or run.offline:
            continue
        whole = f"{one['name']}:{one['version']}"
        try:
            with wandb_artifacts.asking(server):
                run.use_artifact(whole)
        except wandb_artifacts.NotThere as error:
            raise StepFailed(f"{whole} was evaluated, but W&B {server} no longer has it: its lineage cannot be recorded") from error
    made = wandb.Artifact(name_of(results), type=TYPE, metadata={"artifacts": named, "scores": scores(results)})
    with made.new_file("results.json", mode="w") as handle:
        handle.write(json.dumps(files.seal_json(dict(results)), indent=2, ensure_ascii=False) + "\n")
    with wandb_artifacts.asking(server):
        logged = run.log_artifact(made)
        if not run.offline:
            logged.wait(timeout=wandb_artifacts.ANSWER_SECONDS * 3)
    run.config.update({DECLARED: named}, allow_val_change=True)  # type: ignore[no-untyped-call]


def name_of(results: Mapping[str, Any]) -> str:
    """The name of the results' artifact: `BenchmarkResults-rl` for ModelArtifact-rl; without a model artifact, from the served model."""
    names = [one["name"].rpartition("/")[2] for one in results.get("artifacts", {}).values()]
    name = names[0].removeprefix("ModelArtifact-") if names else results["model"] or "model"
    return "BenchmarkResults-" + re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:100]


def scores(results: Mapping[str, Any]) -> dict[str, float | None]:
    """Every score by `task/part/metric/score`, for the artifact's metadata. The last part is left out where it repeats the metric."""
    found = {}
    for row in results["rows"]:
        words = [row["task"], row["part"], row["metric"], row["score"] if row["score"] != row["metric"] else None]
        found["/".join(filter(None, words))] = row["value"]
    return found
