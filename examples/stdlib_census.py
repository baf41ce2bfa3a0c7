"""A census of Python's standard library, in parallel: `python examples/stdlib_census.py [--address auto]`.

The program is part of the package, where `python -m rabbitry.demo` runs it too: `api/rabbitry/demo.py`.
"""

from rabbitry.demo import main

if __name__ == "__main__":
    main()
