"""The encoders: their architectures, and checkpoints in the official format and in that of Hugging Face."""
