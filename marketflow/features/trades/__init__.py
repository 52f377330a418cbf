"""Trade features and targets: one pure kernel for batch, stream, backfill and a researcher's file."""
