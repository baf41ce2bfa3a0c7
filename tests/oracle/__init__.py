"""The same small programs on Ray and on rabbitry.

`cases` says what is done, `on_ray` and `on_rabbitry` how each of the two does it. `recorded.json` holds what Ray 2.60
did; `python -m tests.oracle.record` writes it anew, in an environment that has Ray. `test_oracle` compares.
"""
