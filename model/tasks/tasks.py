"""The task that a recipe names: its data, its training and its model."""

from typing import Any

from model.data.corpus import Corpus, load_corpus
from model.data.pairs import Pairs, load_pairs
from model.data.pieces import Pieces, load_pieces
from model.data.series import Series, load_series
from model.data.vocabulary import Words
from model.data.watched import Collection, load_watched
from model.recipe import (
    AnomaliesRecipe,
    GeneratedRecipe,
    ListOpsRecipe,
    MusicRecipe,
    Recipe,
    SeriesRecipe,
    TextRecipe,
    TranslateRecipe,
)
from model.tasks import adding, copying, counting, listops
from model.tasks.anomalies import Anomalies, new_watcher
from model.tasks.characters import CharacterModel
from model.tasks.drawn import Drawn, Rules
from model.tasks.forecast import Forecast, new_forecaster
from model.tasks.music import Music
from model.tasks.numbers import NumberModel
from model.tasks.task import Data, Task, TaskModel
from model.tasks.text import Text
from model.tasks.translate import Translate, Translator

_DRAWN: dict[str, tuple[type[Drawn], tuple[str, ...]]] = {
    "adding": (adding.Adding, adding.NAMES),
    "copy": (copying.Copying, copying.NAMES),
    "counting": (counting.Counting, counting.NAMES),
    "listops": (listops.ListOps, listops.NAMES),
}


def load_data(recipe: Recipe) -> Any:
    """What a recipe says is to be learnt from, `Data` of some kind.

    Raises:
        DataError: there is no such data, or too little of it.
    """
    match recipe:
        case TextRecipe(task="words"):
            return load_corpus(recipe.data, Words)
        case TextRecipe():
            return load_corpus(recipe.data)
        case SeriesRecipe():
            return load_series(recipe.data)
        case MusicRecipe():
            return load_pieces(recipe.data)
        case AnomaliesRecipe():
            return load_watched(recipe.data)
        case TranslateRecipe():
            return load_pairs(recipe.data)
        case GeneratedRecipe() | ListOpsRecipe():
            return Rules(_DRAWN[recipe.task][1])
    raise AssertionError(recipe.task)


def task_of(recipe: Recipe, data: Data) -> Task:
    """The training that a recipe asks for.

    Raises:
        DataError: the data is too short for it.
    """
    match recipe, data:
        case TextRecipe(), Corpus():
            return Text(recipe, data)
        case SeriesRecipe(), Series():
            return Forecast(recipe, data)
        case MusicRecipe(), Pieces():
            return Music(recipe, data)
        case AnomaliesRecipe(), Collection():
            return Anomalies(recipe, data)
        case TranslateRecipe(), Pairs():
            return Translate(recipe, data)
        case GeneratedRecipe() | ListOpsRecipe(), Rules():
            return _DRAWN[recipe.task][0](recipe, data)
    raise AssertionError(recipe.task)


def new_model(recipe: Recipe, names: tuple[str, ...]) -> TaskModel:
    """The model of a recipe without its data, weights still to come.

    Args:
        recipe: Sizes and task.
        names: Of the data it was made for.
    """
    match recipe:
        case SeriesRecipe():
            return new_forecaster(recipe)
        case MusicRecipe():
            return NumberModel(len(names), len(names), recipe.model)
        case AnomaliesRecipe():
            return new_watcher(recipe)
        case ListOpsRecipe():
            return listops.new_reader(recipe, names)
        case TranslateRecipe():
            return Translator(names, recipe)
        case GeneratedRecipe(task="adding"):
            return NumberModel(len(names), 1, recipe.model)
    return CharacterModel(len(names), recipe.model)
