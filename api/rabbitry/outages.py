"""What users see when a server stays away for longer than calls wait for it: one public error, whichever server it is.

Below the public face errors say more, for code that may try again; these functions stand at the face.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

from rabbitry.core.failures import store_full
from rabbitry.exceptions import RabbitryError, RabbitrySystemError
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.shared_memory import ObjectStoreFull

_P = ParamSpec("_P")
_T = TypeVar("_T")


def raise_public(error: RabbitryBrokerError) -> NoReturn:
    """Raise what users are to see of an error of the broker root.

    Raises:
        ObjectStoreFullError: there is no room.
        RabbitrySystemError: a server is away, or the session has ended.
    """
    if isinstance(error, RabbitryError):
        raise error  # a task raised it, and that is an instance of what the task raised
    if isinstance(error, ObjectStoreFull):
        raise store_full(error) from error
    raise RabbitrySystemError(error) from error


def with_public_errors(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Decorate a public function that asks the servers; hot ones call `raise_public` themselves."""

    @functools.wraps(function)
    def asked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except RabbitryBrokerError as error:
            raise_public(error)

    return asked
