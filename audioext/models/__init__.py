"""The values that everything else speaks of: requests, results, records, entries and events."""
