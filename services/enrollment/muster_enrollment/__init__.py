"""The enrollment service: which agency takes part, and under what authorization."""
