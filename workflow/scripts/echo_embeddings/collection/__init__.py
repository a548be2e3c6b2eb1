"""Which folders a collection has, and which files a folder holds."""
