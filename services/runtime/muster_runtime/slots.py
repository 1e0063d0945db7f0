"""Slots: how much of a process's work one tenant may have at once, so that no tenant starves the others.

A tenant may have as much as is still free (the dynamic thresholds of Choudhury and Hahne, 1998): the first gets at most
half of the process, the next half of the rest, and there is always room for another.
"""

from collections import Counter

from muster_runtime.errors import TooManyRequests

# The fraction of all slots that only operators may take.
OPERATORS_PART = 0.1


class Slots:
    """A resource of which a process has `total`, shared by tenants. Part of it is reserved for operators."""

    def __init__(self, total: int, what: str) -> None:
        self.total = total
        self.used = 0
        self._reserve = int(total * OPERATORS_PART)
        self._what = what
        self._held: Counter[str] = Counter()

    @property
    def is_full(self) -> bool:
        """Whether a tenant could not take any more."""
        return self.used >= self.total - self._reserve

    def fits(self, tenant: str, count: int = 1, *, operator: bool = False) -> bool:
        """Whether the tenant may take `count` now."""
        free = self._free(operator)
        return count <= free and self._held[tenant] + count <= max(free - count, 1)

    def take(self, tenant: str, count: int = 1, *, operator: bool = False) -> None:
        """Take `count`. Raises TooManyRequests if the tenant has its share, or if not enough are left."""
        free = self._free(operator)
        if count > free:
            raise TooManyRequests(f"all {self.total} {self._what} of this process are in use; try again later")
        if not self.fits(tenant, count, operator=operator):
            raise TooManyRequests(
                f"you use {self._held[tenant]} of this process's {self._what}, and {free} are left for others; "
                "try again when some of your requests have completed"
            )
        self._held[tenant] += count
        self.used += count

    def give_back(self, tenant: str, count: int = 1) -> None:
        """Give `count` back."""
        self.used -= count
        self._held[tenant] -= count
        if not self._held[tenant]:
            del self._held[tenant]

    def _free(self, operator: bool) -> int:
        """How many an operator, or a tenant, could still take."""
        return self.total - self.used - (0 if operator else self._reserve)
