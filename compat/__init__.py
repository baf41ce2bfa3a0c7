"""Programs of Ray's own libraries, run on rabbitry and on Ray; see `compat/run.py`."""
