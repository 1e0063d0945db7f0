"""What every Muster service runs on; it knows no word of the domain."""
