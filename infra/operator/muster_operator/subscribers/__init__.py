"""The registry, in a file, of programs outside Muster that read its topics or write their own."""
