"""The rules of pools, seats, windows, checks, and seat files. No I/O, no clock: the time is an argument."""
