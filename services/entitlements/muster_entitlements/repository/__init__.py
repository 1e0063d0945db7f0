"""SQL of the write side: functions that take a connection whose transaction holds the agency's lock."""
