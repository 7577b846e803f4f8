"""Settings from outside: what code gives comes first, then the environment, then `audioext.toml`, then the defaults."""
