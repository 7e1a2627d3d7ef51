"""The structure of the code: no import loops, small files and functions, contained dependencies."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "glm_jax"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
FOLDERS = "glm_jax|tests|docs|configs|launch|benchmarks"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker reads."""
    yield node
    for child in ast.iter_child_nodes(node):
        if is_type_checking(node) and child in getattr(node, "body", ()):
            continue
        yield from run_time_nodes(child)


def imported_names(module: str) -> Iterator[str]:
    """Every module or name that a module imports, also inside functions."""
    for node in run_time_nodes(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(module: str) -> Iterator[str]:
    """The package's own modules that a module imports."""
    for name in imported_names(module):
        owner = name if name in MODULES else name.rpartition(".")[0]
        if owner in MODULES:
            yield owner


def folder_of(module: str, depth: int) -> str:
    """The folder of a module, at most `depth` below the package; a module at the top is its own."""
    parts = module.split(".")
    folder = parts if MODULES[module].name == "__init__.py" else parts[:-1]
    return ".".join(folder[: depth + 1]) if len(folder) > 1 else module


def folder_graph(depth: int) -> dict[str, set[str]]:
    graph = defaultdict(set)
    for module in MODULES:
        source = folder_of(module, depth)
        for imported in imported_modules(module):
            target = folder_of(imported, depth)
            nested = source.startswith(f"{target}.") or target.startswith(f"{source}.")
            if source != target and not nested:
                graph[source].add(target)
    return graph


@pytest.mark.parametrize("depth", [1, 2], ids=["folders", "subfolders"])
def test_folders_do_not_import_each_other_in_loops(depth):
    try:
        TopologicalSorter(folder_graph(depth)).prepare()
    except CycleError as error:
        pytest.fail(f"import loop: {' -> '.join(reversed(error.args[1]))}")


def test_what_modules_import_from_the_package_exists():
    for module in MODULES:
        for name in imported_names(module):
            if name.startswith("glm_jax."):
                assert name in MODULES or name.rpartition(".")[0] in MODULES, (module, name)


def test_files_are_short():
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").split("\n")) - 1
        for folder in ("glm_jax", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {path: length for path, length in lengths.items() if length > MAX_FILE_LINES} == {}


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def test_functions_are_short():
    too_long = {
        f"{module}.{node.name}": function_lines(node)
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and function_lines(node) > MAX_FUNCTION_LINES
    }
    assert too_long == {}


def modules_importing(package: str) -> set[str]:
    return {
        module
        for module in MODULES
        if any(name.split(".")[0] == package for name in imported_names(module))
    }


def test_gin_is_imported_in_one_file():
    assert modules_importing("gin") == {"glm_jax.configure"}


def test_torch_is_imported_for_parity_only():
    importing = modules_importing("torch")
    assert importing
    # The code that travels with exported folders is for other programs, and for parity.
    allowed = ("glm_jax.parity.", "glm_jax.convert.huggingface_code.")
    assert all(module.startswith(allowed) for module in importing), importing


def test_libtpu_is_never_imported():
    assert modules_importing("libtpu") == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_in_the_documentation_exist(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(
        r"(?<![\w/.-])((?:glm_jax|tests|docs|configs|launch|benchmarks)/[\w./*-]*)", text
    )
    linked = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    missing = [path for path in named if not list(ROOT.glob(path.rstrip("./")))]
    missing += [path for path in linked if not (page.parent / path).exists()]
    assert missing == []


def test_the_index_lists_every_page():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\((\w+\.md)\)", index))
    assert linked == {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
