"""HTTP: pure messages, decoding and signing, and the transport, which does the I/O."""
