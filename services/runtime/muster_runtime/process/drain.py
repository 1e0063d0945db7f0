"""The longest time from SIGTERM to the end of a process: the sum of its waits, which happen one after another.

A supervisor that kills it sooner loses no data, because unfinished work is repeated. But an agency then waits for a
lock until Postgres notices, and a consumer's partitions wait until the group notices. So Kubernetes' grace period must
be longer.
"""

from collections.abc import Collection, Mapping

from muster_runtime.database.transactions import CLOSE_SECONDS
from muster_runtime.http.connections import DRAIN_SECONDS as HTTP_SECONDS
from muster_runtime.messaging.consumer.member import STOP_SECONDS as CONSUMER_SECONDS
from muster_runtime.observability.tracing import FLUSH_SECONDS
from muster_runtime.process.duties import STOP_SECONDS as DUTIES_SECONDS
from muster_runtime.process.roles import ALL, ALL_ROLES, Role

# From the signal until the server stops listening, plus from the last closed connection until Python exits.
OVERHEAD_SECONDS = 1.0


def drain_seconds(roles: Collection[Role]) -> float:
    """The longest time that a process with these roles needs from SIGTERM to its end.

    Every process has an HTTP side, duties, and the worker's pool; only the roles concerned have a consumer or the
    routes' pool. The relay, the scheduler, and the workers are duties, which all end at the same time.
    """
    needed = OVERHEAD_SECONDS + HTTP_SECONDS + DUTIES_SECONDS + CLOSE_SECONDS + FLUSH_SECONDS
    if Role.CONSUMER in roles:
        needed += CONSUMER_SECONDS
    if Role.API in roles:
        needed += CLOSE_SECONDS
    return needed


# By role name, and for a process with all roles.
DRAIN_SECONDS: Mapping[str, float] = {ALL: drain_seconds(ALL_ROLES)} | {role: drain_seconds({role}) for role in Role}
