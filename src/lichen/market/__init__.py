"""What it costs: prices, quotes, meters, vouchers, receipts and the log that keeps them."""
