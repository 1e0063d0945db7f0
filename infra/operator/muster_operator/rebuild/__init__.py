"""`muster rebuild`: rebuilds a projection from the topics, compares it with the live one, and replaces the live one."""

from muster_operator.rebuild.cli import rebuild

__all__ = ["rebuild"]
