"""From `f.remote()` to the queues: plans, arguments, batches; and taking it back."""
