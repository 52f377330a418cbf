"""Pure kernels: a number here is computed the same for stream, batch and backfill. No I/O, no clock, no Spark."""
