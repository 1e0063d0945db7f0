"""SQL that loads and stores what the domain decides on. The caller's transaction holds the agency's lock."""
