"""Mathematics on text and vectors: scrub, account, train privately, clear what leaves."""
