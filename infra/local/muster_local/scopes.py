"""Every scope that a route of the four services asks for; docs/access.md says which route asks for which."""

SCOPES = (
    "enrollment:read",
    "enrollment:write",
    "enrollment:authorize",
    "enrollment:operate",
    "entitlements:read",
    "entitlements:write",
    "entitlements:operate",
    "billing:read",
    "billing:write",
    "billing:receive",
    "billing:operate",
    "notify:read",
    "notify:write",
    "notify:operate",
    "sandbox:operate",
)
