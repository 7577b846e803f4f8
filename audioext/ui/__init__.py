"""The live page: jobs as they go through their stages, for people who look."""
