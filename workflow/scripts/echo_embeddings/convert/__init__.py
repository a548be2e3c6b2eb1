"""Clips to a tree of MP4 files and its manifest; videos that are there already to a manifest."""
