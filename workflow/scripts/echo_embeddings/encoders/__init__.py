"""The encoders: architectures, checkpoints in the official form and in that of Hugging Face."""
