"""What every Muster service runs on. It knows nothing of the domain."""
