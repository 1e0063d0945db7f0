"""What operators see: health, metrics, log lines, and the audit."""
