"""What `import ray` means under the alias (`rabbitry.as_ray`): where every name below `ray` comes from.

    ray.X  =  our module of that name
              else an adapter, for what Ray writes in C++ or asks of its head node (`adapters/`)
              else the Python file of an installed Ray (`pip install 'rabbitry[ray]'`): Data, Train, Tune, Serve, RLlib

Nothing of Ray is copied, and its compiled core is never loaded. `table.py` is the one place that says which is which.
"""
