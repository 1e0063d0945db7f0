"""Plays the whole year on a running stack."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

from muster_contracts import SERVICES
from muster_entitlements_client import EntitlementsClient
from muster_local.coordinator import Coordinator
from muster_local.demo import cast
from muster_local.demo.cast import Agency
from muster_local.demo.evidence import Evidence, gather
from muster_local.demo.new_features import NewFeatures
from muster_local.demo.program import ProgramClient
from muster_local.demo.scene import Scene
from muster_local.demo.story import Story
from muster_local.demo.witness import Witness
from muster_local.home import APPROVER
from muster_local.receiver import Receiver
from muster_local.scopes import SCOPES
from muster_local.stack import Stack


async def play_year(
    stack: Stack,
    receiver: Receiver,
    agencies: Sequence[Agency],
    on_instant: Callable[[datetime], None] = lambda _: None,
    on_scene: Callable[[Scene], None] = lambda _: None,
) -> Evidence:
    """Play every scene at its instant, and gather the evidence."""
    instants: set[datetime] = set()
    urls = {service: stack.service_url(service) for service in SERVICES}
    async with (
        Coordinator.of(stack) as coordinator,
        ProgramClient(urls, stack.token(*SCOPES)) as program,
        ProgramClient(urls, stack.token(*SCOPES, subject=APPROVER)) as approver,
        EntitlementsClient(
            stack.kafka.options(), topic_prefix=stack.topic_prefix, now=lambda: coordinator.now or cast.START
        ) as client,
    ):
        witness = Witness(client, program)
        (trying,) = (agency for agency in agencies if agency.id == cast.TRYING)
        new_features = NewFeatures(program, approver, coordinator, trying)
        scenes = [*Story(program, coordinator, receiver, agencies).scenes(), *new_features.scenes()]

        async def stand(now: datetime) -> None:
            instants.add(now)
            await witness.compare(now)
            on_instant(now)

        await coordinator.begin(cast.START)
        for scene in sorted(scenes, key=lambda scene: scene.at):
            await coordinator.advance(scene.at, stand)
            on_scene(scene)
            await scene.play()
        await coordinator.settle()
        return await gather(
            stack,
            agencies,
            Counter(program.commands) + Counter(approver.commands),
            frozenset(instants),
            receiver.messages(),
            uses=new_features.uses,
            comparisons=witness.comparisons,
        )
