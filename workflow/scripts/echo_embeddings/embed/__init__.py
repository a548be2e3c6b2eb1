"""An MP4 tree and an encoder to one vector a clip, and features where they are asked for."""
