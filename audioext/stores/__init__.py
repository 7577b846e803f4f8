"""Where records, the outbox and the journal of deliveries live; a store knows nothing of stages."""
