"""From waiting tasks to executors, and back: who runs what, and what an executor's end means for it."""
