"""One module a venue: subscribe, parse, poll, heal. A quirk of a venue never leaves its module; no Kafka and no clock here."""
