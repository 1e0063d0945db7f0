"""The documents that are made from the models and committed beside them: `python -m muster_contracts.generate`.

Each module makes some of them as text by path, relative to the folder `contracts/`; nothing but pydantic is needed.
"""

from muster_contracts.generate import asyncapi, catalog, page, schemas


def documents() -> dict[str, str]:
    """Every generated document by its path."""
    return {**schemas.documents(), **asyncapi.documents(), **catalog.documents(), **page.documents()}
