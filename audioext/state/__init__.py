"""What a journal means, as pure functions."""
