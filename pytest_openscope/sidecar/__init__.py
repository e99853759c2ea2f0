"""The helper process: mirror, witness, resource samples, outbox."""
