"""The four services under live traffic, with faults at seeded random points: `make faults-long`."""
