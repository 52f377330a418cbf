"""What runs for ever: definitions, the supervisor backend, the wrapper. Knows no market data."""
