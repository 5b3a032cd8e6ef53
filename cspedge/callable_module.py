"""Packages that share their name with a stage of the API are callable: `cspedge.quantize(...)` runs the stage.

Importing `cspedge.quantize.ops` binds the name `quantize` in `cspedge` to the package, whatever stood there; so the
package itself must answer the call, or the API would work only until the first import.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module that passes calls on to the function of its name in `cspedge.api`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from cspedge import api

        return getattr(api, self.__name__.rpartition(".")[2])(*args, **kwargs)


def make_callable(name: str) -> None:
    """Called by a package on itself, with its `__name__`."""
    sys.modules[name].__class__ = CallableModule
