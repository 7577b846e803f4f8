"""HTTP: messages as values, strict decoding and proofs, which are pure, and the transport, which is not."""
