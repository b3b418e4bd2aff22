"""The package's shape: who imports whom, what is private, how long things are.

Read from the sources alone: nothing of the package is imported.
"""

import ast
import collections
import functools
import graphlib

import pytest
from small import ROOT

PACKAGE = "keras_hybrid"
# From below to above: a module imports from its own layer and those below.
LAYERS = [
    {"_version"},
    {"_support"},
    {
        "batches",
        "formula",
        "groups",
        "plans",
        "recipes",
        "rules",
        "scales",
        "transitions",
        "triggers",
        "units",
    },
    {"execution"},
    {"optimizer"},
    {"callbacks"},
    {"presets"},
    {"study", "tuning"},
    {"reports"},
    {"cli"},
    {PACKAGE},  # The public names.
]
# Documented imports that go on: each is a part of the package that it names.
ALIASES = {
    f"{PACKAGE}.tuner": "tuning",
    f"{PACKAGE}.study.report": "reports",
}
MOST_LINES = {"module": 400, "class": 300, "function": 60}


@functools.cache
def sources():
    """The text and the syntax tree of every module, by its dotted name."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text("utf-8")
        found[name] = text, ast.parse(text)
    return found


def imports(module):
    """The modules of the package that a module imports anywhere in it."""
    for node in ast.walk(sources()[module][1]):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from (name for name in names if name in sources())
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} is relative"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                name = full if full in sources() else node.module
                if name in sources():
                    yield name


def part_of(module):
    """The part of the package that a module belongs to."""
    if module in ALIASES:
        return ALIASES[module]
    return module.split(".")[1] if "." in module else module


def height(module):
    part = part_of(module)
    found = [h for h, layer in enumerate(LAYERS) if part in layer]
    assert found, f"{module}: say in which of LAYERS {part!r} lies"
    return found[0]


def test_imports_go_one_way():
    upward = [
        f"{module} imports {other}"
        for module in sources()
        for other in imports(module)
        if height(other) > height(module)
    ]
    assert not upward


def test_every_layer_exists():
    assert {part_of(m) for m in sources()} == set().union(*LAYERS)
    assert ALIASES.keys() <= sources().keys()


def test_aliases_only_pass_names_on():
    for module, part in ALIASES.items():
        assert {part_of(other) for other in imports(module)} == {part}
        kinds = {type(node) for node in sources()[module][1].body}
        assert kinds == {ast.Expr, ast.ImportFrom, ast.Assign}, module


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: set(imports(module)) for module in sources()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


# ---- Underscore names -------------------------------------------------------


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def private_names(tree):
    """The underscore names that a module gives to something."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names = [node.name]
        elif isinstance(node, ast.Attribute):
            names = [node.attr] if isinstance(node.ctx, ast.Store) else []
        elif isinstance(node, ast.Name):
            names = [node.id] if isinstance(node.ctx, ast.Store) else []
        else:
            continue
        yield from filter(is_private, names)


def test_nobody_reaches_for_anothers_underscore_names():
    """Those of Keras and TensorFlow are theirs, as none of ours has them."""
    owners = collections.defaultdict(set)
    for module, (_, tree) in sources().items():
        for name in private_names(tree):
            owners[name].add(module)
    reached = collections.defaultdict(set)
    for module, (_, tree) in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                theirs = owners[node.attr]
                if theirs and module not in theirs:
                    reached[module].add(node.attr)
            elif isinstance(node, ast.ImportFrom):
                reached[module] |= {
                    alias.name
                    for alias in node.names
                    if node.module.split(".")[0] == PACKAGE
                    and is_private(alias.name)
                    and f"{node.module}.{alias.name}" not in sources()
                }
    assert not {module: names for module, names in reached.items() if names}


# ---- Sizes ------------------------------------------------------------------


def lines_of(node):
    """A class's lines, or those of a function without its docstring."""
    if isinstance(node, ast.ClassDef):
        return node.end_lineno - node.lineno + 1
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return node.end_lineno - body[0].lineno + 1 if body else 0


def parts_inside(node, outer):
    """Classes and functions within a syntax tree, by their dotted names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            name = f"{outer}.{child.name}"
            yield name, child
            yield from parts_inside(child, name)
        else:
            yield from parts_inside(child, outer)


@functools.cache
def sizes():
    """Kind and lines of every module, class and function, by name."""
    found = {}
    for module, (text, tree) in sources().items():
        within = module.removeprefix(f"{PACKAGE}.")
        found[within] = "module", len(text.splitlines())
        for name, node in parts_inside(tree, within):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            most = max(lines_of(node), found.get(name, (kind, 0))[1])
            found[name] = kind, most  # A property and its setter: the longer.
    return found


def test_modules_classes_and_functions_are_short():
    too_long = {
        name: lines
        for name, (kind, lines) in sizes().items()
        if lines > MOST_LINES[kind]
    }
    assert not too_long


def test_the_lines_of_parts_are_counted():
    tree = ast.parse(
        '''
class Outer:
    def first(self):
        """Words do not count."""
        if self:

            def inner():
                return 1

        return 2
'''
    )
    counted = [(n, lines_of(x)) for n, x in parts_inside(tree, "m")]
    assert counted == [
        ("m.Outer", 9),
        ("m.Outer.first", 6),
        ("m.Outer.first.inner", 1),
    ]
