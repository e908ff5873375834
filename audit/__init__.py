"""Evidence: keys, signed logs, witnesses, bundles, the offline verifier, the watermark."""
