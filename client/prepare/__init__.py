"""From an institution's raw files to training data, within the institution's folder."""
