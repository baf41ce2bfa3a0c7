"""Java and C++: rabbitry runs Python only, which is said where they are asked for."""

from __future__ import annotations

from typing import Any, NoReturn


def java_function(class_name: str, function_name: str) -> NoReturn:
    """Say that there is no Java here.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError(f"rabbitry runs Python only: {class_name}.{function_name} would be Java")


def java_actor_class(class_name: str) -> NoReturn:
    """Say that there is no Java here.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError(f"rabbitry runs Python only: {class_name} would be a Java actor")


def cpp_function(function_name: str, *_: Any) -> NoReturn:
    """Say that there is no C++ here.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError(f"rabbitry runs Python only: {function_name} would be C++")
