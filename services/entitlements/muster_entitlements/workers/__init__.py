"""The long-running duties, such as processing seat files, and the rebuilds of projections."""
