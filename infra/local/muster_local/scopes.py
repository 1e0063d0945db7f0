"""Every scope that a route of the four services requires; docs/access.md lists them by route."""

SCOPES = (
    "enrollment:read",
    "enrollment:write",
    "enrollment:authorize",
    "enrollment:operate",
    "enrollment:audit",
    "entitlements:read",
    "entitlements:write",
    "entitlements:operate",
    "entitlements:audit",
    "billing:read",
    "billing:write",
    "billing:receive",
    "billing:operate",
    "billing:audit",
    "notify:read",
    "notify:write",
    "notify:operate",
    "notify:audit",
    "sandbox:operate",
)
