"""A whole federation on one machine: generated records and the processes that learn from them."""
