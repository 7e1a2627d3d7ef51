"""A run folder is what holds its configuration, however it was copied, moved, linked or named."""

import os
import shutil
from pathlib import Path

import pytest

from glm_jax.configure import read_configuration
from glm_jax.train.run_folder import gin_text, json_text

DEMO = Path(__file__).resolve().parents[2] / "configs" / "runs" / "demo.gin"


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """Writes the configuration of a run as a run does; the working folder is `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, *bindings: str) -> Path:
        config = read_configuration([DEMO], [f"train.run_folder={name}", *bindings])
        folder = Path(name)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json_text(config))
        (folder / "config.gin").write_text(gin_text(config))
        return folder

    return write


def folder_read(gin_file: object, *bindings: str) -> str:
    return read_configuration([Path(str(gin_file))], bindings).train.run_folder


def test_a_folder_that_stays_keeps_the_name_it_was_given(run_folder):
    run_folder("runs/a")
    assert folder_read("runs/a/config.gin") == "runs/a"


@pytest.mark.parametrize("name", ["copy", "täglicher lauf", "deep/er"])
def test_a_copy_is_a_run_of_its_own(run_folder, name):
    shutil.copytree(run_folder("orig"), name)
    assert folder_read(f"{name}/config.gin") == name
    assert folder_read(f"./{name}/config.gin") == name
    assert folder_read(f"{Path(name).absolute()}/config.gin") == str(Path(name).absolute())


def test_a_moved_folder_is_itself(run_folder):
    run_folder("orig").rename("ren")
    assert folder_read("ren/config.gin") == "ren"


def test_a_folder_is_found_from_another_working_folder(run_folder, tmp_path, monkeypatch):
    run_folder("orig")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert folder_read("../orig/config.gin") == "../orig"
    monkeypatch.chdir(tmp_path / "orig")
    assert Path(folder_read("config.gin")).resolve() == tmp_path / "orig"


def test_links_lead_to_the_folder(run_folder):
    run_folder("orig").rename("ren")
    os.symlink("ren", "link")
    os.symlink("ren/config.gin", "mine.gin")
    assert folder_read("link/config.gin") == "link"
    assert Path(folder_read("mine.gin")).resolve() == Path("ren").resolve()


def test_a_copy_with_a_linked_configuration_is_a_run_of_its_own(run_folder):
    orig = run_folder("orig")
    Path("copy").mkdir()
    shutil.copy(orig / "config.json", "copy")
    os.symlink("../orig/config.gin", "copy/config.gin")
    assert folder_read("copy/config.gin") == "copy"


def test_a_folder_given_explicitly_wins(run_folder, tmp_path):
    shutil.copytree(run_folder("orig"), "copy")
    assert folder_read("copy/config.gin", "train.run_folder=new") == "new"
    later = tmp_path / "later.gin"
    later.write_text("train.run_folder = 'later'\n")
    assert read_configuration(["copy/config.gin", later]).train.run_folder == "later"
    later.write_text("include 'copy/config.gin'\ntrain.num_steps = 3\n")
    assert folder_read(later) == str(tmp_path / "copy")


def test_a_template_that_lies_in_no_run_folder_means_what_it_says(run_folder, tmp_path):
    (tmp_path / "configs").mkdir()
    shutil.copy(run_folder("orig") / "config.gin", "configs/config.gin")
    assert folder_read("configs/config.gin") == "orig"


def test_a_converted_checkpoint_does_not_name_the_run_it_came_from(run_folder):
    orig = run_folder("orig")
    (Path("converted") / "checkpoints" / "60").mkdir(parents=True)
    shutil.copy(orig / "config.gin", "converted")
    assert folder_read("converted/config.gin") == "converted"


def test_paths_inside_the_folder_move_with_it(run_folder):
    run_folder(
        "orig",
        "data.store=''",
        "data.stores={'orig/store': 0.5, 'stores/other': 1.0}",
        "data.supervised=orig/tasks/lines.jsonl",
        "data.supervised_share=0.1",
        "train.initial_weights=original",
    ).rename("ren")
    run_folder(
        "first",
        "data.tasks={'rte': 'first/RTE', 'cb': 'data/CB', 'copa': 'tfds:super_glue/copa'}",
        "data.supervised_share=0.1",
    ).rename("second")
    tasks = read_configuration(["second/config.gin"]).data.tasks
    assert dict(tasks) == {
        **{"rte": "second/RTE", "cb": "data/CB"},
        "copa": "tfds:super_glue/copa",
    }
    config = read_configuration(["ren/config.gin"])
    assert dict(config.data.stores) == {"ren/store": 0.5, "stores/other": 1.0}
    assert config.data.supervised == "ren/tasks/lines.jsonl"
    assert config.train.initial_weights == "original"


def test_nothing_else_of_a_configuration_changes(run_folder):
    shutil.copytree(run_folder("orig"), "copy")
    one, other = (read_configuration([f"{name}/config.gin"]) for name in ("orig", "copy"))
    assert gin_text(one).replace("'orig'", "'copy'") == gin_text(other)
