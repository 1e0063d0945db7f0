"""How much may be parked in a test that is not about parking."""

from muster_runtime.messaging.parking import ParkingLimits

LIMITS = ParkingLimits(records=100_000, streams=50)
