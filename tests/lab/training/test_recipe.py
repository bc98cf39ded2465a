from __future__ import annotations

import pytest

from tsbs_daw.core.errors import SettingsError
from tsbs_daw.lab.training.recipe import list_recipes, load_recipe


@pytest.mark.parametrize("name", ["bundled", "tiny-bundled", "lite-musdb18hq", "full-musdb18hq"])
def test_every_bundled_recipe_makes_a_model_configuration(name):
    recipe = load_recipe(name)
    config = recipe.model_config_value()
    assert recipe.name == name
    assert name in list_recipes()
    assert set(config.stems) == {"vocals", "drums", "bass", "other"}


def test_the_full_recipe_trains_the_paper_s_model():
    from tsbs_daw.network import FULL, LITE

    assert load_recipe("full-musdb18hq").model_config_value() == FULL
    assert load_recipe("lite-musdb18hq").model_config_value() == LITE


def test_changes_are_read_as_yaml_and_reach_nested_settings():
    changes = ["optimiser.batch=7", "model.overrides.mask_blocks=1", "loss.n_ffts=[512, 1024]"]
    recipe = load_recipe("tiny-bundled", changes)
    assert recipe.optimiser.batch == 7
    assert recipe.model_config_value().mask_blocks == 1
    assert recipe.loss.n_ffts == (512, 1024)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("optimiser.bach=7", "optimiser.bach"),
        ("optimiser.learning_rate=-1", "optimiser.learning_rate"),
        ("optimiser.learning_rate=.nan", "optimiser.learning_rate"),
        ("augment.gain_min_db=20", "gain_min_db"),
        ("seed", "part.field=value"),
        ("seed.more=1", "names no setting"),
    ],
)
def test_a_wrong_setting_is_named(change, words):
    with pytest.raises(SettingsError, match=words):
        load_recipe("tiny-bundled", [change])


def test_an_override_that_the_model_does_not_know_is_refused():
    with pytest.raises(SettingsError, match="model overrides"):
        load_recipe("tiny-bundled", ["model.overrides.depth=3"]).model_config_value()


def test_an_unknown_recipe_lists_those_there_are():
    with pytest.raises(SettingsError, match="tiny-bundled"):
        load_recipe("tiny-bundeld")


def test_a_file_that_is_no_recipe_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("- a list", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"mine\.yaml"):
        load_recipe(path)
    path.write_text("a: [", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"mine\.yaml"):
        load_recipe(path)


def test_a_mistake_in_a_recipe_is_named_with_its_line_and_the_closest_setting(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nmodel: {size: tiny}\noptimiser:\n  learning_rat: 1e-3\n")
    with pytest.raises(SettingsError, match=r"mine\.yaml:4:3: .*did you mean 'learning_rate'\?"):
        load_recipe(path)
    path.write_text("name: mine\nmodel: {size: tiny}\nname: again\n")
    with pytest.raises(SettingsError, match=r"mine\.yaml:3:1: 'name' is given twice"):
        load_recipe(path)
