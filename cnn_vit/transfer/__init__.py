"""Somebody's weights -> our trees, and back. It never trains."""
