"""The one way to what an optimizer holds: its variables by their names.

Needs no backend, so that the checks of every backend can use it.
"""

from keras_hybrid.execution.functions import Functions


def state(optimizer, name):
    """Its vector or number of that name, "sgd_scale" for one, as a variable."""
    (found,) = (v for v in optimizer.variables if v.name == name)
    return found


def slots(optimizer, name):
    """Its slots of that name, "first_moment" for one; not all need one."""
    return [v for v in optimizer.variables if v.name.endswith(f"_{name}")]


def tracing_counts(optimizer):
    """How often TensorFlow has traced each function of its updates."""
    (functions,) = _found(optimizer, Functions, set())
    return functions.tracing_counts()


def _found(thing, kind, seen):
    """The objects of that kind that a part of our library holds."""
    if isinstance(thing, kind):
        return [thing]
    ours = type(thing).__module__.startswith("keras_hybrid")
    if not ours or id(thing) in seen:
        return []
    seen.add(id(thing))
    held = getattr(thing, "__dict__", {}).values()
    return [x for part in held for x in _found(part, kind, seen)]
