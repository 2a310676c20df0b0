"""A data set looked at before training: broken files, near duplicates, label leaks, counts; and what they mean."""
