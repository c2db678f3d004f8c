"""The queue of a cluster."""

from helpers.config import clusters
from helpers.executors import registry


def show(profile: str | None, partition: str | None, most: int) -> None:
    """Print at most `most` jobs of a profile's partition, or of another one (`all`: of all). Raises BadInput, Unreachable."""
    config = clusters.config_of_profile(profile, registry)
    chosen = partition or str(config["execution"].get("partition") or "batch")
    registry.get(config["execution"]["type"]).show_queue(clusters.of_config(config), "" if chosen == "all" else chosen, most)
