"""From the inbox to whoever waits: results, streams, notes, callbacks."""
