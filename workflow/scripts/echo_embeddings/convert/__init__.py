"""Clips to a tree of MP4 files and its manifest."""
