"""Runs the blocks of a page, which stand as JSON on standard input, as one program: its lines are those of the page."""

import json
import sys
from contextlib import redirect_stdout
from io import StringIO


def main(page: str) -> None:
    """Run all blocks in the namespace of this module, which is `__main__`, as that of a program is."""
    import rabbitry

    namespace = sys.modules["__main__"].__dict__
    for block in json.load(sys.stdin):
        code = compile("\n" * (block["line"] - 1) + block["source"], page, "exec", dont_inherit=True)
        printed = StringIO()
        with redirect_stdout(printed):
            exec(code, namespace)
        if block["output"] is not None and printed.getvalue() != block["output"]:
            sys.exit(f"{page}:{block['line']} printed\n{printed.getvalue()}\nbut the page says\n{block['output']}")
    rabbitry.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
