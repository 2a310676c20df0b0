"""What all rooms of `data` share: parts, splits, padded sizes, threads. It imports none of the other rooms."""
