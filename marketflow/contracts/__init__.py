"""What every layer promises, as data: tables, records, reasons, topics, products. No I/O, and no engine imported."""
