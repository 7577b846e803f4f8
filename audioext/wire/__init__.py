"""The wire as values: what is sent, what arrives, and what it means. Nothing here does I/O."""
