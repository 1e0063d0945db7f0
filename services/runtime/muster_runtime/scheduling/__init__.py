"""Scheduled work: deadlines and their scheduler, the deletion of expired rows, and the sealing of the audit trail."""
