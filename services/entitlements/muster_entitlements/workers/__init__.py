"""The long-running duties: processing seat files; and the rebuild of the pools' counts."""
