"""From an MP4 tree and an encoder to one vector a clip, and to features where they are asked for."""
