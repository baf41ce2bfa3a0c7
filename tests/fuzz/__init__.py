"""Random programs against an oracle: what nobody thinks of writing a test for.

| module | what it is |
|---|---|
| `programs` | a program as plain data: steps that JSON can hold |
| `generate` | a program from a seed |
| `script` | a program as the source of a script that a person can run alone, on rabbitry or on Ray |
| `prelude` | the head of each script |
| `model` | which outcomes a program may have, found by going through its steps one after the other |
| `session` | a process that runs programs in one session and reports what it saw |
| `run` | starts engines and sessions, judges reports, shrinks what failed: `python -m tests.fuzz.run --help` |
| `driver_ends` | drivers that end in the middle of a program |
| `jobs` | programs that submit jobs, with a model of their own |
| `inputs` | odd values for every public argument |
| `interleavings` | the orders in which threads run and events come, over fakes |
| `failed/` | programs that failed once, as data: `test_programs.py` runs them again |
"""
