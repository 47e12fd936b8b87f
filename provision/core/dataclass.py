"""`dataclass` of the standard library, made for programs that run for a fifth of a second. Standard library only.

For each frozen class, the standard library compiles six methods as it is imported: most of the time that such a module
takes. Here one of them is compiled, `__init__`; the others are the same functions in all classes. Every command takes a
sixth less time. What the library knows of its classes it knows of these: `fields`, `replace`, `asdict`, Pydantic.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    import dataclasses

    def dataclass(cls=None, /, *, frozen=False, kw_only=False):
        """Make a dataclass of a class. A class that has one of the shared methods itself keeps it.

        Args:
            frozen: its attributes can't be changed, and its objects can be hashed.
            kw_only: its attributes are given by name alone.
        """
        # An Invoke in an old Python may answer what tasks there are: before 3.10 there was no kw_only.
        options = {"kw_only": True} if kw_only else {}
        if not frozen:
            return dataclasses.dataclass(cls, **options)

        def decorate(cls):
            own = set(vars(cls))
            made = dataclasses.dataclass(cls, eq=False, repr=False, **options)
            made.__compared__ = tuple(each.name for each in dataclasses.fields(made) if each.compare)
            for name, method in _METHODS.items():
                if name not in own:
                    setattr(made, name, method)
            return made

        return decorate if cls is None else decorate(cls)

    def _values(self):
        return tuple([getattr(self, name) for name in self.__compared__])

    def _equal(self, other):
        return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented

    def _hash(self):
        return hash(_values(self))

    def _repr(self):
        shown = [
            f"{each.name}={getattr(self, each.name)!r}" for each in dataclasses.fields(self) if each.repr
        ]
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def _set(self, name, value):
        # `__init__` gives each attribute its value once; nothing else may.
        if name in self.__dict__ or name not in self.__dataclass_fields__:
            raise dataclasses.FrozenInstanceError(
                f"cannot assign to field {name!r} of {type(self).__qualname__}"
            )
        object.__setattr__(self, name, value)

    def _delete(self, name):
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r} of {type(self).__qualname__}")

    _METHODS = {
        "__eq__": _equal,
        "__hash__": _hash,
        "__repr__": _repr,
        "__setattr__": _set,
        "__delattr__": _delete,
    }
