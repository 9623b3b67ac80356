"""Which model a run works on: the recipe's own, a directory's, or the one that its parent made or would make."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kit.errors import UserError
from kit.flops import ModelShape
from kit.layout import Layout
from kit.run.directory import RunDirectory
from kit.tokens.card import CARD_NAME, read_card
from launch.plan import Plan, make_plan
from launch.planner.legality import SIZES, check_layout
from launch.recipe_files import recipe_that_makes
from recipes.model.config import ModelConfig

Parents = Mapping[str, RunDirectory | UserError]

HUGGING_FACE: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer"),
    "hidden": ("hidden_size", "n_embd"),
    "heads": ("num_attention_heads", "n_head"),
    "kv_heads": ("num_key_value_heads", "num_attention_heads", "n_head"),
    "ffn": ("intermediate_size", "n_inner"),
    "vocab": ("vocab_size",),
}
CONTEXT = ("max_position_embeddings", "n_positions")
LONGEST_WINDOW = 2048
ENOUGH = "devices_per_host=1048576"
"""A parent's recipe is planned for its sizes, not for this machine."""


class UnknownModel(Exception):
    """Nothing says which model a run works on; the words say why."""


class KnownModel(NamedTuple):
    """A model's shape, and in words where it comes from."""

    shape: ModelShape
    source: str


def find_model(plan: Plan, parents: Parents) -> KnownModel:
    """The model of a run, with the run's own sequence length.

    Raises:
        UnknownModel: The recipe names none, or nothing says how large its vocabulary is.
    """
    config = plan.config
    data = config.get("data")
    length = data.get("sequence_length") if isinstance(data, Mapping) else config.get("window_tokens")
    model = config.get("model")
    path = model if isinstance(model, str) else config.get("model_path") or config.get("start_from")
    if isinstance(model, Mapping) and "layers" in model:
        vocab = model.get("vocab") or vocabulary(plan, parents)
        if not vocab:
            raise UnknownModel("the vocabulary depends on data that is not there yet")
        return KnownModel(_own_shape(model, int(vocab), int(length or LONGEST_WINDOW)), "the recipe")
    if path:
        return _of_directory(Path(str(path)), length)
    if "model" not in plan.parents:
        raise UnknownModel(f"stage {plan.stage} has no model")
    parent = parents.get("model")
    if isinstance(parent, RunDirectory):
        return _of_directory(parent.artifacts / "model", length)
    return _of_recipe(plan, length)


def check_model_of(plan: Plan, parents: Parents) -> None:
    """Checks a layout against what only the parents bring: a model without sizes in the recipe, a vocabulary.

    Raises:
        UserError: The model can't be cut this way; names the nearest layouts that can.
    """
    if plan.layout is None or plan.layout == Layout():
        return
    with contextlib.suppress(UnknownModel):
        shape = find_model(plan, parents).shape
        check_layout(plan.layout, plan.config, {key: int(getattr(shape, key)) for key in SIZES}, shape.vocab)


def vocabulary(plan: Plan, parents: Parents) -> int | None:
    """The vocabulary that the parents' shards have, or would have by the recipe that makes them; None if unknown."""
    for run in parents.values():
        if isinstance(run, RunDirectory) and (run.artifacts / CARD_NAME).is_file():
            return read_card(run.artifacts / CARD_NAME).tokenizer.vocab_size
    recipe = _recipe_of(plan, "data")
    if recipe is None or isinstance(parents.get("data"), RunDirectory):
        return None
    tokenizer = make_plan(recipe, target_sets=[ENOUGH]).config.get("tokenizer")
    if isinstance(tokenizer, Mapping) and tokenizer.get("file"):
        return None  # another run's, which says how large it is
    return int(tokenizer["vocab_size"]) if isinstance(tokenizer, Mapping) and "vocab_size" in tokenizer else None


def held_out_tokens(plan: Plan, parents: Parents) -> int | None:
    """Tokens of the split that an evaluation reads."""
    data = parents.get("data")
    if not isinstance(data, RunDirectory) or not (data.artifacts / CARD_NAME).is_file():
        return None
    split = read_card(data.artifacts / CARD_NAME).splits.get(str(plan.config.get("split", "validation")))
    return split.tokens if split else None


def _recipe_of(plan: Plan, name: str) -> str | None:
    """The recipe that would make a missing parent."""
    last, _, stage = plan.parents.get(name, "").partition(":")
    return recipe_that_makes(stage, Path(plan.recipe).stem) if last == "last" and stage else None


def _of_recipe(plan: Plan, length: int | None) -> KnownModel:
    recipe = _recipe_of(plan, "model")
    if recipe is None:
        raise UnknownModel(f"parent `model` ({plan.parents['model']}) is not there, and no recipe makes it")
    made = make_plan(recipe, target_sets=[ENOUGH])
    shape, source = find_model(made, {})
    own = int(length or shape.sequence_length)
    words = source if source != "the recipe" else f"recipe {recipe}, which would make parent `model`"
    return KnownModel(shape.model_copy(update={"sequence_length": own}), words)


def _of_directory(path: Path, length: int | None) -> KnownModel:
    """The shape by a Hugging Face directory's config.json, in the names of the Llama or the GPT-2 family."""
    file = path / "config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if "n_embd" in config:  # GPT-2 leaves the width of its MLP out where it is four times the model's
            config = {"n_inner": 4 * int(config["n_embd"])} | {key: value for key, value in config.items() if value}
        sizes = {
            key: next(int(config[name]) for name in names if config.get(name)) for key, names in HUGGING_FACE.items()
        }
    except (OSError, ValueError, StopIteration) as error:
        raise UnknownModel(f"{file}: {type(error).__name__}: {error}") from None
    context = next((int(config[name]) for name in CONTEXT if config.get(name)), LONGEST_WINDOW)
    head_dim = int(config.get("head_dim") or sizes["hidden"] // sizes["heads"])
    shape = ModelShape(
        **sizes,
        head_dim=head_dim,
        sequence_length=int(length or min(context, LONGEST_WINDOW)),
        gated="n_embd" not in config,
        biased="n_embd" in config,
        positions=int(config.get("n_positions") or 0),
        tied=bool(config.get("tie_word_embeddings", "n_embd" in config)),
    )
    return KnownModel(shape, str(file))


def _own_shape(model: Mapping[str, Any], vocab: int, length: int) -> ModelShape:
    return ModelConfig.model_validate(model).with_vocab(vocab, length).shape(length)
