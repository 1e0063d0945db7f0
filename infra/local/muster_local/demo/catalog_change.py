"""The year's change of the feature catalog: what follows the trial of Deep Research becomes twice as much."""

from muster_local.coordinator import Coordinator
from muster_local.demo.program import ProgramClient, Unexpected

FEATURE = "deep-research"
QUOTA = 50


async def change_catalog(program: ProgramClient, coordinator: Coordinator) -> None:
    """Publish the second version of the catalog, and wait until every agency has it."""
    present = await program.get("entitlements", "catalog")
    features = [
        feature | ({"monthly_quota_after": QUOTA} if feature["key"] == FEATURE else {})
        for feature in present["features"]
    ]
    draft = await program.put("entitlements", "catalog/draft", {"rule": "now", "features": features})
    await program.post("entitlements", "catalog/draft/publication", expect=200, if_match=f'"{draft["revision"]}"')
    await coordinator.settle()
    version = await program.get("entitlements", f"catalog/versions/{draft['number']}")
    if version["agencies_left"] != 0:
        raise Unexpected(f"{version['agencies_left']} agencies do not have version {version['number']} of the catalog")
