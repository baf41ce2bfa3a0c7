"""The other name under which Ray has `set_trace()`; see `rabbitry.util.rpdb`."""

from rabbitry.util.rpdb import set_trace

__all__ = ["set_trace"]
