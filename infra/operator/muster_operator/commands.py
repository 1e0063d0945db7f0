"""The commands of this package."""

from muster_operator.catalog import Catalog, Command

CATALOG = Catalog(
    "Operate",
    (
        Command(
            "login",
            "muster_operator.session.commands:login",
            "Log in to the identity provider, on any device with a browser.",
        ),
        Command(
            "logout",
            "muster_operator.session.commands:logout",
            "Delete the session of muster login, and end it at the identity provider.",
        ),
        Command(
            "whoami",
            "muster_operator.session.commands:whoami",
            "Show who the token says you are.",
        ),
        Command(
            "parked",
            "muster_operator.parked:app",
            "Show, replay, and discard parked streams: those with an event that could not be applied.",
        ),
        Command(
            "deadlines",
            "muster_operator.deadlines:app",
            "List, retry, and discard parked deadlines; release those that are held after a restore.",
        ),
        Command(
            "streams",
            "muster_operator.streams:app",
            "Show each stream's last sequence, produced and applied; accept gaps, raise the epoch, reread topics.",
        ),
        Command(
            "reconcile",
            "muster_operator.reconcile.cli:reconcile",
            "Compare the services with each other and with the topics.",
        ),
        Command(
            "erase-lost",
            "muster_operator.erase_lost:erase_lost",
            "Erase a contact or a seat holder that a restore lost but the directory topics and notify still have.",
        ),
        Command(
            "trace",
            "muster_operator.trace.cli:trace",
            "Show the path of a change through all services: its commit, its events, their effects, and deliveries.",
        ),
        Command(
            "rebuild",
            "muster_operator.rebuild:rebuild",
            "Rebuild a projection from the topics and compare it with the live one; --swap replaces the live one.",
        ),
        Command(
            "self-test",
            "muster_operator.self_test:self_test",
            "Send a harmless command and wait until every reader has applied its event.",
        ),
        Command(
            "rollback-check",
            "muster_operator.rollback:rollback_check",
            "Check whether a release's code can run on the current databases.",
        ),
        Command(
            "preflight",
            "muster_operator.preflight.cli:preflight",
            "Find what would fail, before an installation or an upgrade.",
        ),
        Command(
            "databases",
            "muster_operator.databases.cli:app",
            "Create the services' roles, databases, and schemas on a Postgres server.",
        ),
        Command(
            "topics",
            "muster_operator.topic_plan:app",
            "Compare Kafka's topics with the contracts, and correct them.",
        ),
        Command(
            "subscribers",
            "muster_operator.subscribers.cli:app",
            "Register the programs that read Muster's topics: who owns them, what they may do, and their lag.",
        ),
        Command(
            "audit",
            "muster_operator.audit.cli:app",
            "Verify the audit trails against their seals, and export them.",
        ),
        Command(
            "agency",
            "muster_operator.agency:app",
            "List, show, enroll, authorize, and withdraw agencies; accept the data-use terms.",
        ),
        Command(
            "catalog",
            "muster_operator.feature_catalog:app",
            "Show, plan, and apply the feature catalog.",
        ),
        Command(
            "windows",
            "muster_operator.windows:app",
            "Show an agency's feature windows; extend a trial, end it, or correct its start.",
        ),
        Command(
            "grants",
            "muster_operator.grants:app",
            "List, add, and revoke grants: features for an agency or one person, in addition to its windows.",
        ),
        Command(
            "proposals",
            "muster_operator.proposals:app",
            "List, show, approve, and reject proposals: requests that need a second person.",
        ),
        Command(
            "seats",
            "muster_operator.seats:app",
            "Import an agency's seats.",
        ),
    ),
)
