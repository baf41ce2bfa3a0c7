"""Random programs that submit jobs, on each engine and on Ray, beside a model of what may become of them.

| module | what it is |
|---|---|
| `programs` | a program as plain data, and one from a seed |
| `entrypoint` | the head of each job's driver: what it does, as it was told |
| `model` | what each answer and each end may be |
| `session` | a process that runs programs in one session with a dashboard, and reports what it saw |
| `run` | starts engines and sessions, judges reports: `python -m tests.fuzz.jobs.run --help` |

What it cannot find: how long anything takes, but that it hangs; what goes wrong only with many jobs, with a node that
is lost as a whole (`tests/end_to_end/test_jobs.py`), or between two services. Environments are variables and a
directory.
"""
