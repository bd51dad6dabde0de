"""Names that stand for content: IPNS records and DNSLink."""
