"""The live page. Needs the extra `web`."""
