"""Files: bringing local audio to a provider, and downloading results."""
