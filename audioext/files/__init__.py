"""Files: how local audio reaches a provider, and how results are fetched."""
