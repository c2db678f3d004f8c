"""The queue of a cluster."""

from __future__ import annotations

from helpers.config import clusters, profile_fields
from helpers.executors import registry


def show(profile_name: str | None, partition: str | None, most: int) -> None:
    """Print at most `most` jobs of a profile's partition, or of another one (`all`: of all). Raises BadInput, Unreachable."""
    profile = profile_fields.of_cluster(profile_name)
    chosen = partition or str(profile.fields.get(profile_fields.partition_field(profile, "eval")) or "batch")
    executor = registry.get(registry.describe_for_profile(profile.fields["executor"]).name)
    executor.show_queue(clusters.of_profile(profile), "" if chosen == "all" else chosen, most)
