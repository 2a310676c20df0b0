"""Scans a data set before training: unreadable files, near duplicates, label leaks and counts; and what they mean."""
