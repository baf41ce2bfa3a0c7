"""Extract, transform, load: `python examples/etl_parquet.py [--address auto] [--files 8]`.

Orders come as many Parquet files. A task for each filters, joins with the customers and sums; one task merges the sums.
Tables go from task to task as objects, without copies on one machine, and so do the files, unless `--directory` names a
place for them and the result; on a cluster of several machines, one that all of them see. Needs pyarrow.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import rabbitry

try:
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet
except ImportError:
    raise SystemExit("this example needs pyarrow: pip install 'rabbitry[examples]'") from None

COUNTRIES = ("Chile", "Ghana", "India", "Japan", "Norway")
CUSTOMERS = 500


@rabbitry.remote
def extract(directory: str | None, number: int, rows: int) -> str | pyarrow.Buffer:
    """Write a file of orders, as some other system would have; return its path, or the file itself."""
    at_random = random.Random(number)
    table = pyarrow.table(
        {
            "customer": [at_random.randrange(CUSTOMERS) for _ in range(rows)],
            "cents": [at_random.randrange(100, 20_000) for _ in range(rows)],
            "state": [at_random.choice(("paid", "paid", "paid", "returned")) for _ in range(rows)],
        }
    )
    if directory is None:
        file = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(table, file)
        return file.getvalue()
    path = Path(directory) / f"orders-{number:03}.parquet"
    pyarrow.parquet.write_table(table, path)
    return str(path)


@rabbitry.remote
def transform(file: str | pyarrow.Buffer, customers: pyarrow.Table) -> pyarrow.Table:
    """Return what was paid by country in one file."""
    orders = pyarrow.parquet.read_table(file if isinstance(file, str) else pyarrow.BufferReader(file))
    paid = orders.filter(pyarrow.compute.equal(orders["state"], "paid"))
    joined = paid.join(customers, "customer")
    return joined.group_by("country").aggregate([("cents", "sum"), ("cents", "count")])


@rabbitry.remote
def load(directory: str | None, *parts: pyarrow.Table) -> pyarrow.Table:
    """Add up the parts, write the result if there is a place for it, and return it."""
    merged = pyarrow.concat_tables(parts).group_by("country")
    result = merged.aggregate([("cents_sum", "sum"), ("cents_count", "sum")]).sort_by("country")
    result = result.select(["country", "cents_sum_sum", "cents_count_sum"]).rename_columns(
        ["country", "cents", "orders"]
    )
    if directory is not None:
        pyarrow.parquet.write_table(result, Path(directory) / "by-country.parquet")
    return result


def run(directory: str | None, files: int, rows: int) -> pyarrow.Table:
    """Submit it all at once: each task begins when what it takes is there."""
    customers = rabbitry.put(
        pyarrow.table(
            {
                "customer": list(range(CUSTOMERS)),
                "country": [COUNTRIES[each % len(COUNTRIES)] for each in range(CUSTOMERS)],
            }
        )
    )
    parts = [transform.remote(extract.remote(directory, number, rows), customers) for number in range(files)]
    return rabbitry.get(load.remote(directory, *parts))


def main() -> None:
    """Run the pipeline, and show the result."""
    parser = argparse.ArgumentParser(description="Extract, transform and load Parquet files.")
    parser.add_argument("--address", help="of a cluster (default: one on this machine)")
    parser.add_argument("--files", type=int, default=8, help="of orders")
    parser.add_argument("--rows", type=int, default=20_000, help="in each")
    parser.add_argument("--directory", help="for the files (default: they travel as objects)")
    options = parser.parse_args()
    with rabbitry.init(options.address):
        result = run(options.directory, options.files, options.rows)
        print(f"{options.files} files with {options.files * options.rows:,} orders\n")
        print(f"{'country':<10}{'orders':>10}{'paid':>16}")
        for row in result.to_pylist():
            print(f"{row['country']:<10}{row['orders']:>10,}{row['cents'] / 100:>16,.2f}")
        print(f"{'all':<10}{sum(result['orders'].to_pylist()):>10,}{sum(result['cents'].to_pylist()) / 100:>16,.2f}")


if __name__ == "__main__":
    main()
