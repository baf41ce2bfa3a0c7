"""What `import rabbitry.tune` says: Ray's libraries are no modules of rabbitry, and run on it under their own names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class LibraryFinder:
    """Asked last, after all that could have the module; it has none, but knows what to say of some.

    No subclass of `importlib.abc.MetaPathFinder`: to import that costs more than all of this.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return None.

        Raises:
            ImportError: an import statement wants one of Ray's libraries from rabbitry. Not a ModuleNotFoundError,
                which `from rabbitry import tune` would turn into "cannot import name".
        """
        if not name.startswith("rabbitry."):
            return None
        from rabbitry.not_there import LIBRARIES, of_library

        library = name.split(".")[1]
        # Two finders up the stack is who asks: to importlib.util.find_spec the answer is None, as for any other name.
        if library in LIBRARIES and sys._getframe(2).f_globals.get("__name__") != "importlib.util":
            raise ImportError(f"No module named {name!r}: {of_library(library)}", name=name)
        return None


def install() -> None:
    """Put the finder last on `sys.meta_path`, once."""
    if not any(isinstance(finder, LibraryFinder) for finder in sys.meta_path):
        sys.meta_path.append(LibraryFinder())
