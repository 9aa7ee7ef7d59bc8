"""Sinks of results, by URI."""
