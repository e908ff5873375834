"""Search over hyper-parameters: on public records, or on private ones at a price."""
