"""What is stored, by hash: CIDs, dag-pb, UnixFS, CARs and the block store."""
