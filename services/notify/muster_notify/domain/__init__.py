"""Notify's rules: who is notified of what, what messages say, when to attempt a delivery. No I/O, no clock."""
