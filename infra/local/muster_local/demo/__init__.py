"""The demo: a program's first year on the real stack, and the proof that its books balance."""
