"""The parts that run while a client is open: submits, waits, polls and handlers, around one writer of journals."""
