"""The node: agent, executors, actor hosts."""
