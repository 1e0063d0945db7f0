"""What operators see: metrics, logs, and the audit trail."""
