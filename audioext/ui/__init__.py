"""The live page: jobs and their stages in a browser."""
