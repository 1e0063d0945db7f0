"""A local copy of Muster's entitlements, which follows the snapshot topic and answers checks without a request."""

from muster_entitlements_client.access_copy import AccessCopy, NotReady
from muster_entitlements_client.answers import Answer, Verdict
from muster_entitlements_client.client import EntitlementsClient, Fallback, Stale
from muster_entitlements_client.http_checks import HttpChecks

__all__ = ["AccessCopy", "Answer", "EntitlementsClient", "Fallback", "HttpChecks", "NotReady", "Stale", "Verdict"]
