"""The errors of notify."""

from muster_runtime.errors import Conflict, NotFound


class WebhookUnknown(NotFound):
    """The agency has no such endpoint, or it is deleted."""

    def __init__(self, webhook_id: str) -> None:
        super().__init__(f"there is no webhook {webhook_id[:80]}")


class ReplayUnknown(NotFound):
    """The endpoint has no such replay."""

    def __init__(self, replay_id: str) -> None:
        super().__init__(f"there is no replay {replay_id[:80]}")


class DeliveryUnknown(NotFound):
    """There is no such delivery, or the caller may not see it."""

    def __init__(self, delivery_id: str) -> None:
        super().__init__(f"there is no delivery {delivery_id[:80]}")


class DuplicateWebhook(Conflict):
    """Another endpoint of the agency already sends one of the events to the same URL."""

    def __init__(self, webhook_id: str) -> None:
        super().__init__(
            f"url: endpoint {webhook_id} already sends these events to this URL; enable that endpoint if it is "
            "disabled, delete it, or name other event_types"
        )


class WebhookLimitReached(Conflict):
    """The agency, or the operators, already have the maximum number of endpoints."""

    slug = "webhook-limit-reached"
    title = "No more endpoints are allowed"

    def __init__(self, audience: str, limit: int) -> None:
        super().__init__(f"{audience} may have at most {limit} endpoints: delete one first", limit=limit)


class AlreadyEnabled(Conflict):
    """The endpoint is enabled."""

    def __init__(self, webhook_id: str) -> None:
        super().__init__(f"webhook {webhook_id} is already enabled")


class EndpointNotEnabled(Conflict):
    """The endpoint to replay is disabled."""

    def __init__(self, webhook_id: str, state: str) -> None:
        super().__init__(f"webhook {webhook_id} is {state}: enable it first")


class ReplayRunning(Conflict):
    """The endpoint is being replayed; one replay runs at a time."""

    def __init__(self, webhook_id: str, replay_id: str) -> None:
        super().__init__(f"replay {replay_id} of webhook {webhook_id} is running: wait until it is done")


class AlreadyDelivered(Conflict):
    """The delivery has arrived."""

    def __init__(self, delivery_id: str) -> None:
        super().__init__(f"delivery {delivery_id} is already delivered")


class DeliveryWaits(Conflict):
    """An earlier delivery to the same recipient must finish first."""

    def __init__(self, delivery_id: str, recipient: str) -> None:
        super().__init__(f"delivery {delivery_id} is waiting behind an earlier one to {recipient}")


class DeliveryReplayed(Conflict):
    """A running replay sends the delivery, in order."""

    def __init__(self, webhook_id: str, replay_id: str) -> None:
        super().__init__(f"webhook {webhook_id} is being replayed in order: retry when replay {replay_id} is done")


class RecipientNotEnabled(Conflict):
    """The endpoint of the delivery is disabled or deleted."""

    def __init__(self, delivery_id: str, webhook_id: str, state: str, *, can_be_enabled: bool) -> None:
        cure = ": enable it first" if can_be_enabled else ""
        super().__init__(f"delivery {delivery_id} goes to webhook {webhook_id}, which is {state}{cure}")
