"""Every scope that a route of the four services asks for; docs/access.md says which route asks for which."""

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
