"""What all rooms of `data` share: parts, splits, padding, threads. It imports none of the others."""
