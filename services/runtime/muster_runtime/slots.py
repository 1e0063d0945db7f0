"""Slots: how much of a process's work one tenant may have at once, so that no tenant starves the others.

A tenant may hold as much as is still free (the dynamic thresholds of Choudhury and Hahne, 1998): the first one
gets half of the process at most, the next one half of the rest, and there is always room for another.
"""

from collections import Counter

from muster_runtime.errors import TooManyRequests

# The part of all slots that only operators may take.
OPERATORS_PART = 0.1


class Slots:
    """A resource of which a process has `total`, shared by tenants. `reserve` is kept for operators."""

    def __init__(self, total: int, what: str) -> None:
        self.total = total
        self.used = 0
        self._reserve = int(total * OPERATORS_PART)
        self._what = what
        self._held: Counter[str] = Counter()

    @property
    def is_full(self) -> bool:
        """Whether nothing is left that a tenant could take."""
        return self.used >= self.total - self._reserve

    def fits(self, tenant: str, count: int = 1, *, operator: bool = False) -> bool:
        """Whether the tenant may take so many now."""
        free = self._free(operator)
        return count <= free and self._held[tenant] + count <= max(free - count, 1)

    def take(self, tenant: str, count: int = 1, *, operator: bool = False) -> None:
        """Take some. Raises TooManyRequests if the tenant holds its share, or if none are left."""
        free = self._free(operator)
        if count > free:
            raise TooManyRequests(f"all {self.total} {self._what} of this process are taken; send it again later")
        if not self.fits(tenant, count, operator=operator):
            raise TooManyRequests(
                f"{self._held[tenant]} of the {self._what} of this process are yours, and {free} are left for others; "
                "send it again when some of your requests are answered"
            )
        self._held[tenant] += count
        self.used += count

    def give_back(self, tenant: str, count: int = 1) -> None:
        """Give some back."""
        self.used -= count
        self._held[tenant] -= count
        if not self._held[tenant]:
            del self._held[tenant]

    def _free(self, operator: bool) -> int:
        """How many are left that an operator, or a tenant, could take."""
        return self.total - self.used - (0 if operator else self._reserve)
