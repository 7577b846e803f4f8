"""The four APIs: one file for each, and what they share."""
