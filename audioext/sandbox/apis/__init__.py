"""The four APIs: one file for each, two for kie.ai, and what they share."""
