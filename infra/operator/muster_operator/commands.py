"""The commands of this distribution."""

from muster_operator.catalog import Catalog, Command

CATALOG = Catalog(
    "Operate",
    (
        Command("parked", "muster_operator.parked:app", "Show, replay, and discard parked streams."),
        Command("deadlines", "muster_operator.deadlines:app", "List, retry, and discard parked deadlines."),
        Command("streams", "muster_operator.streams:app", "Show and check every stream's positions; repair them."),
        Command("reconcile", "muster_operator.reconcile.cli:reconcile", "Compare the services with each other."),
        Command("rebuild", "muster_operator.rebuild.cli:rebuild", "Rebuild a projection from the topics."),
        Command("topics", "muster_operator.topic_plan:app", "Compare Kafka's topics with the contracts; correct them."),
        Command("agency", "muster_operator.agency:app", "List, show, enroll, authorize, and withdraw agencies."),
        Command("seats", "muster_operator.seats:app", "Import an agency's seats."),
    ),
)
