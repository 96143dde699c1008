"""Extensions from the package, from installed packages and from a folder, under one set of names."""

import subprocess
import sys
from pathlib import Path

import pytest

from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.pruning import Method
from obert.pruning.magnitude import Magnitude

METHOD = """
from obert.pruning import Method

class {name}(Method):
    def score(self, context):
        return {{name: weight.abs() for name, weight in context.weights.items()}}
"""
BROKEN = "raise RuntimeError('this file is broken')\n"


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    yield
    registry.use_folder(None)
    registry.refresh()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package as pip does: modules beside a dist-info folder, in a folder that Python looks in."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def install(package, entry_points, **modules):
        information = site / f"{package.replace('-', '_')}-0.1.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
        (information / "entry_points.txt").write_text(entry_points)
        for module, text in modules.items():
            path = site.joinpath(*module.split("__")).with_suffix(".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            monkeypatch.delitem(sys.modules, module.split("__")[0], raising=False)
        registry.refresh()
        return site

    return install


@pytest.fixture
def in_folder(tmp_path):
    """Writes files of an extensions folder and uses it."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path.joinpath("mine", *name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        registry.use_folder(tmp_path / "mine")
        registry.refresh()
        return tmp_path / "mine"

    return write


@pytest.mark.parametrize("kind", registry.KINDS)
def test_the_packages_own_are_its_files(kind):
    files = {path.stem for path in (Path(registry.__file__).parents[1] / kind).glob("[a-z]*.py")}
    assert set(registry.names(kind)) == files
    assert list(registry.names(kind)) == sorted(files)
    for name in files:
        assert registry.source_file(kind, name).read_text(encoding="utf-8")


def test_a_method_of_an_installed_package(install):
    points = "[obert.pruning]\nfrom_package = outside\nby_class = outside_package.methods:Second\n"
    site = install(
        "outside-methods",
        points,
        outside=METHOD.format(name="First"),
        outside_package__methods=METHOD.format(name="Zeroth") + METHOD.format(name="Second"),
    )
    assert {"from_package", "by_class", "magnitude"} <= set(registry.names("pruning"))
    registry.require("pruning", "from_package")
    assert registry.source_file("pruning", "from_package") == site / "outside.py"
    assert registry.source_file("pruning", "by_class") == site / "outside_package" / "methods.py"
    assert not {"outside", "outside_package"} & set(sys.modules)  # found without an import
    assert registry.load("pruning", "from_package").__name__ == "First"
    assert registry.load("pruning", "by_class").__name__ == "Second"
    assert issubclass(registry.load("pruning", "by_class"), Method)


def test_a_method_of_a_folder_with_a_module_that_it_shares(in_folder):
    shared = "FACTOR = 2.0\n"
    using = "from ._shared import FACTOR\n" + METHOD.format(name="Mine")
    folder = in_folder(pruning__mine=using, pruning___shared=shared)
    assert "mine" in registry.names("pruning")
    assert "_shared" not in registry.names("pruning")
    assert registry.source_file("pruning", "mine") == folder / "pruning" / "mine.py"
    assert registry.folder() == folder
    found = registry.load("pruning", "mine")
    assert issubclass(found, Method)
    assert sys.modules[found.__module__].FACTOR == 2.0
    registry.use_folder(None)
    assert "mine" not in registry.names("pruning")
    assert not any(name.startswith("obert_extensions") for name in sys.modules)


def test_another_folder_takes_the_place_of_the_first(tmp_path, in_folder):
    in_folder(pruning__mine=METHOD.format(name="First"))
    assert registry.load("pruning", "mine").__name__ == "First"
    other = tmp_path / "other" / "pruning"
    other.mkdir(parents=True)
    (other / "mine.py").write_text(METHOD.format(name="Other"))
    registry.use_folder(other.parent)
    assert registry.load("pruning", "mine").__name__ == "Other"


@pytest.mark.parametrize("kind", ["tasks", "engines", "tables", "stages"])
def test_every_kind_has_its_group_and_its_folder(install, in_folder, kind):
    install("several", f"[obert.{kind}]\nfrom_package = several_things\n", several_things="")
    in_folder(**{f"{kind}__from_folder": ""})
    assert {"from_package", "from_folder"} <= set(registry.names(kind))
    message = rf"from_folder\.py must define exactly one subclass of {registry.CLASSES[kind]}, found 0"
    with pytest.raises(UserError, match=message):
        registry.load(kind, "from_folder")


def test_two_of_one_name_are_refused_and_both_places_named(install, in_folder):
    install("outside-methods", "[obert.pruning]\nmagnitude = outside\n", outside=METHOD.format(name="First"))
    places = r"'magnitude' is there twice: obert/pruning/magnitude\.py and package outside-methods 0\.1"
    for ask in (
        lambda: registry.names("pruning"),
        lambda: registry.require("pruning", "obert"),
        lambda: registry.load("pruning", "obert"),
        lambda: registry.source_file("pruning", "magnitude"),
    ):
        with pytest.raises(UserError, match=places):
            ask()
    assert registry.names("tasks")


def test_two_of_one_name_in_a_package_and_a_folder(install, in_folder):
    install("outside-methods", "[obert.pruning]\nmine = outside\n", outside=METHOD.format(name="First"))
    in_folder(pruning__mine=METHOD.format(name="Second"))
    with pytest.raises(UserError, match=r"package outside-methods 0\.1 .* and .*mine/pruning/mine\.py"):
        registry.names("pruning")


def test_two_packages_of_one_name(install):
    install("first-package", "[obert.pruning]\nmine = outside\n", outside=METHOD.format(name="First"))
    install("second-package", "[obert.pruning]\nmine = outside\n")
    with pytest.raises(UserError, match=r"package (first|second)-package 0\.1 .* and package (first|second)-package"):
        registry.names("pruning")


def test_a_broken_extension_is_listed_and_says_what_is_wrong_with_it(install, in_folder):
    install("outside-methods", "[obert.pruning]\nbroken = outside\n", outside=BROKEN)
    in_folder(pruning__also_broken=BROKEN)
    assert {"broken", "also_broken"} <= set(registry.names("pruning"))
    for name, place in (("broken", "package outside-methods 0.1"), ("also_broken", "also_broken.py")):
        with pytest.raises(RuntimeError, match="this file is broken") as error:
            registry.load("pruning", name)
        assert f"pruning method '{name}' is from" in error.value.__notes__[0]
        assert place in error.value.__notes__[0]
    assert registry.load("pruning", "magnitude") is Magnitude


def test_an_entry_point_that_leads_nowhere(install):
    install("outside-methods", "[obert.pruning]\ngone = not_there.at_all\nno_class = outside:Wrong\n", outside="")
    assert {"gone", "no_class"} <= set(registry.names("pruning"))
    with pytest.raises(UserError, match=r"no module 'not_there\.at_all', as package outside-methods 0\.1"):
        registry.source_file("pruning", "gone")
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        registry.load("pruning", "gone")
    with pytest.raises(UserError, match="outside:Wrong must be a subclass of Method, as package outside-methods"):
        registry.load("pruning", "no_class")


def test_an_entry_point_to_what_is_no_method(install):
    install("outside-methods", "[obert.pruning]\nwrong = outside:VALUE\n", outside="VALUE = dict\n")
    with pytest.raises(UserError, match="outside:VALUE must be a subclass of Method"):
        registry.load("pruning", "wrong")


@pytest.mark.parametrize("name", ["My-Method", "a method", "ünder"])
def test_a_name_that_no_recipe_could_hold_is_refused(install, name):
    install("outside-methods", f"[obert.pruning]\n{name} = outside\n", outside=METHOD.format(name="First"))
    with pytest.raises(UserError, match=r"package outside-methods 0\.1.*lower-case letters, digits and underscores"):
        registry.names("pruning")


def test_a_wrong_name_suggests_one_of_an_extension(in_folder):
    in_folder(pruning__mine_own=METHOD.format(name="Mine"))
    with pytest.raises(UserError, match=r"unknown pruning method 'mine_on' in x\.yaml\. Did you mean 'mine_own'\?"):
        registry.require("pruning", "mine_on", "x.yaml")


def test_folders_that_cannot_be_meant_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"extensions '.*gone' in x\.yaml, extensions is no folder"):
        registry.use_folder(tmp_path / "gone", "x.yaml, extensions")
    (tmp_path / "prunning").mkdir()
    with pytest.raises(UserError, match="has none of the folders pruning, tasks"):
        registry.use_folder(tmp_path)
    (tmp_path / "recipes").mkdir()
    registry.use_folder(tmp_path)
    assert registry.names("pruning")


def test_files_of_any_other_room_have_a_path():
    assert registry.source_file("commands", "check").is_file()
    assert registry.source_file("stages", "not_there") == registry.PACKAGE / "stages" / "not_there.py"


def test_listing_imports_neither_the_rooms_nor_torch():
    script = (
        "import sys; from obert.foundation import registry; [registry.names(kind) for kind in registry.KINDS];"
        "print([m for m in sys.modules if m.startswith(('torch', 'pydantic', 'obert.'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(eval(done.stdout))
    assert loaded == {"obert.foundation", *(f"obert.foundation.{name}" for name in ("registry", "errors", "passwords"))}


def test_entry_points_are_read_once(monkeypatch, install):
    install("outside-methods", "[obert.pruning]\nmine = outside\n", outside=METHOD.format(name="First"))
    registry.names("pruning")
    monkeypatch.setattr("importlib.metadata.entry_points", None)
    assert "mine" in registry.names("pruning")
    assert registry.names("tasks")
    registry.use_folder(None)
    assert "mine" in registry.names("pruning")
