"""What runs while a client is open: waits, submits, polls and handlers, around the one writer of journals."""
