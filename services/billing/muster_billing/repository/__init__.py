"""SQL that loads and stores the domain's objects. The caller's transaction holds the agency's lock."""
