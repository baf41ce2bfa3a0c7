"""A real cluster as the pages' source.

```
cluster     the source: keeps the connection, asks the parts below, one at a time
tasks       the table of tasks, kept up to date from events
rows        rows of actors, jobs, nodes, groups and objects
queues      depths and rates of queues, and figures of the server that has them
jobs        submitted jobs and drivers
acting      cancels, kills, drains
```
"""
