"""Pure functions that compute a job's state from its journal."""
