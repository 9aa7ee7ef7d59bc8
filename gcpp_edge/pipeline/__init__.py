"""A stream: frames captured, explained and handed on, each in threads of their own, bounded everywhere."""
