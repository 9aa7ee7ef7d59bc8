"""Sources of frames, by URI."""
