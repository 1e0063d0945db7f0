"""The chart of Muster: what it copies from the code, generated."""
