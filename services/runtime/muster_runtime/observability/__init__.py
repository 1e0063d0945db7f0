"""What operators see: metrics, log lines, and the audit trail."""
