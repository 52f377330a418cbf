"""Feed and poller loops, sequence tracking, quotas, the Kafka publisher: what a producer process is made of."""
