"""`dataclass` of the standard library, made for programs that run for a fifth of a second. Standard library only.

For each frozen class, the standard library compiles six methods as it is imported: most of the time that such a module
takes. Here five of them are the same functions in all classes, and `__init__` is compiled when the first object is made:
a command makes none of most classes that it imports. Every command takes a fifth less time. What the library knows of
its classes it knows of these: `fields`, `replace`, `asdict`, Pydantic. `InitVar` and `field(init=False)` are not for them.
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
            made = dataclasses.dataclass(cls, init=False, eq=False, repr=False, **options)
            made.__compared__ = tuple(each.name for each in dataclasses.fields(made) if each.compare)
            for name, method in _METHODS.items():
                if name not in own:
                    setattr(made, name, method)
            made.__init__ = _init_when_used(made)
            return made

        return decorate if cls is None else decorate(cls)

    def _init_when_used(made):
        def init(self, *values, **named):
            made.__init__ = _compiled_init(made)
            made.__init__(self, *values, **named)

        return init

    def _compiled_init(made):
        scope = {"__name__": made.__module__, "_give": object.__setattr__, "_missing": dataclasses.MISSING}
        parameters, by_name, lines = ["self"], ["*"], []
        for each in dataclasses.fields(made):
            name = value = parameter = each.name
            if each.default_factory is not dataclasses.MISSING:
                scope[f"_default_{name}"], scope[f"_make_{name}"] = dataclasses.MISSING, each.default_factory
                value = f"_make_{name}() if {name} is _missing else {name}"
            elif each.default is not dataclasses.MISSING:
                scope[f"_default_{name}"] = each.default
            if f"_default_{name}" in scope:
                parameter = f"{name}=_default_{name}"
            (by_name if getattr(each, "kw_only", False) else parameters).append(parameter)
            lines.append(f"_give(self, {name!r}, {value})")
        if by_name[1:]:
            parameters += by_name
        if hasattr(made, "__post_init__"):
            lines.append("self.__post_init__()")
        source = f"def __init__({', '.join(parameters)}):\n  {'; '.join(lines) or 'pass'}"
        exec(source, scope)  # noqa: S102  # as the library does
        init = scope["__init__"]
        init.__qualname__ = f"{made.__qualname__}.__init__"
        return init

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

    def _set(self, name, _):
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r} of {type(self).__qualname__}")

    def _delete(self, name):
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r} of {type(self).__qualname__}")

    _METHODS = {
        "__eq__": _equal,
        "__hash__": _hash,
        "__repr__": _repr,
        "__setattr__": _set,
        "__delattr__": _delete,
    }
