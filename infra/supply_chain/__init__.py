"""What Muster is made of, and whether it may be: the SBOM, the licenses, and the search for secrets."""
