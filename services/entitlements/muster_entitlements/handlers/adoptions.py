"""The deadlines at which an agency adopts a version of the catalog, or the current one again."""

CATALOG_NEXT_TERM = "catalog-next-term"

CATALOG_AFTER_GRACE = "catalog-after-grace"

ADOPTIONS = (CATALOG_NEXT_TERM, CATALOG_AFTER_GRACE)
