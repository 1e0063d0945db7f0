"""Compares a cluster's ACLs with the wanted ones, and corrects them."""

import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.text import Text

from muster_contracts import topics
from muster_operator.access.acls import Acl, AclDifference, Kind, Remedy, acls_of_services, compare
from muster_operator.access.administrator import Administrator
from muster_operator.failures import BadInput
from muster_operator.output import Answer, table
from muster_operator.subscribers.registry import Registry


@dataclass(frozen=True)
class Access:
    """The ACLs of the services, and of the subscribers in a file, if one is given."""

    acls: Sequence[Acl]
    prefix: str
    principal: str
    registered: bool

    @classmethod
    def wanted(cls, prefix: str, principal: str, subscribers: Path | None, *, sandbox: bool) -> "Access":
        """The ACLs that a cluster should have. Raises BadInput for a principal without {name} and for a bad file."""
        if "{name}" not in principal or ":" not in principal:
            raise BadInput(f"--principal {principal}: must be a type and a name with {{name}}, such as User:{{name}}")
        services = acls_of_services(topics().values(), prefix=prefix, principal=principal, sandbox=sandbox)
        registered = [] if subscribers is None else Registry.read(subscribers).acls(prefix, principal)
        return cls([*services, *registered], prefix, principal, subscribers is not None)

    def differences(self, there: Collection[Acl]) -> list[AclDifference]:
        """How the cluster's ACLs `there` differ."""
        return compare(
            self.acls,
            there,
            topics().values(),
            prefix=self.prefix,
            principal=self.principal,
            registered=self.registered,
        )

    def as_commands(self, bootstrap: str) -> Answer:
        """The commands of Kafka's own tool that add the ACLs, for operators who prefer it."""
        rules = list(commands(bootstrap, self.acls))
        heading = Text("ACLs, if the cluster checks access (with --acls, this command adds them):", style="dim")
        lines = (Text(rule, no_wrap=True, overflow="ignore") for rule in rules)
        return Answer({"access_rules": rules}, Group(heading, *lines))


def commands(bootstrap: str, acls: Sequence[Acl]) -> Iterator[str]:
    """A command of `kafka-acls.sh` for each principal and resource."""
    for (principal, kind, name, prefixed), group in groupby(
        sorted(acls), key=lambda acl: (acl.principal, acl.kind, acl.name, acl.prefixed)
    ):
        operations = [word for acl in group for word in ("--operation", acl.operation)]
        pattern = ["--resource-pattern-type", "prefixed"] if prefixed else []
        words = ["kafka-acls.sh", "--bootstrap-server", bootstrap, "--add", "--allow-principal", principal]
        yield shlex.join([*words, *operations, f"--{kind}", name, *pattern])


async def applied(administrator: Administrator, access: Access, *, prune: bool) -> Answer:
    """Add missing ACLs; with `prune`, also remove those that can be pruned. Returns what was done and what is left."""
    found = access.differences(await administrator.acls())
    remedies = {Remedy.ADD, Remedy.PRUNE} if prune else {Remedy.ADD}
    # Add before removing, so that nobody is without rights in between.
    await administrator.add([each.acl for each in found if each.remedy is Remedy.ADD])
    await administrator.remove([each.acl for each in found if each.remedy is Remedy.PRUNE and prune])
    done = [each for each in found if each.remedy in remedies]
    left = shown([each for each in found if each.remedy not in remedies])
    changes = [f"{'added' if each.remedy is Remedy.ADD else 'removed'}: {each.acl}" for each in done]
    data: dict[str, Any] = {
        **left.data,
        "added": [as_json(each.acl) for each in done if each.remedy is Remedy.ADD],
        "removed": [as_json(each.acl) for each in done if each.remedy is Remedy.PRUNE],
    }
    return Answer(data, Group(*(Text(line) for line in changes), left.text), ok=left.ok)


def shown(found: Sequence[AclDifference]) -> Answer:
    """The differences as an answer, which is ok if there are none but ACLs of other releases."""
    data = {"acl_differences": [{**as_json(each.acl), "what": each.what, "remedy": each.remedy} for each in found]}
    if not found:
        return Answer(data, "The ACLs match the contracts.")
    rows = [(escape(str(each.acl)), each.what, each.remedy) for each in found]
    ok = all(each.remedy is Remedy.OTHERS for each in found)
    return Answer(data, table(("ACL", "difference", "what apply does"), rows), ok=ok)


def as_json(acl: Acl) -> dict[str, Any]:
    """An ACL as `--json` prints it."""
    return {name: value.value if isinstance(value, Kind) else value for name, value in asdict(acl).items()}
