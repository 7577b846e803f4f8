"""The plain values that all other parts use: requests, results, records, entries and events."""
