"""`muster rebuild`: a projection built anew from the topics beside the live one, compared, and put in its place."""

from muster_local.rebuild.cli import rebuild

__all__ = ["rebuild"]
