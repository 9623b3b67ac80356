"""What a wrong configuration says: the file, the dotted key, the nearest right one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
import pytest

from kit.config import Config, parse
from kit.errors import UserError


class Minhash(Config):
    kind: Literal["minhash"] = "minhash"
    buckets: int = 14


class Language(Config):
    kind: Literal["language"] = "language"
    threshold: float = 0.65


class Limits(Config):
    steps: int = pydantic.Field(default=1, ge=1)


class Recipe(Config):
    name: str
    limits: Limits = Limits()
    optional: Limits | None = None
    named: dict[str, Limits] = {}
    row: list[Limits] = []
    blocks: list[Annotated[Minhash | Language, pydantic.Field(discriminator="kind")]] = []

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Recipe:
        if self.name == "big" and self.limits.steps < 10:
            raise ValueError("limits.steps must be at least 10 for a big recipe")
        return self


def fault(**data: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        parse(Recipe, {"name": "tiny", **data}, "recipe.yaml")
    assert caught.value.exit_code == 2
    assert caught.value.found.startswith("recipe.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("data", "dotted", "meant"),
    [
        ({"limit": {}}, "limit", "limits"),
        ({"limits": {"step": 3}}, "limits.step", "steps"),
        ({"optional": {"stepps": 3}}, "optional.stepps", "steps"),
        ({"named": {"a": {"stesp": 3}}}, "named.a.stesp", "steps"),
        ({"row": [{}, {"step": 3}]}, "row.1.step", "steps"),
        ({"blocks": [{"kind": "minhash", "bucket": 3}]}, "blocks.0.bucket", "buckets"),
        ({"blocks": [{"kind": "language", "treshold": 0.5}]}, "blocks.0.treshold", "threshold"),
    ],
)
def test_an_unknown_key_is_named_with_its_path_and_the_nearest_key(data: Any, dotted: str, meant: str) -> None:
    error = fault(**data)
    assert f"unknown key `{dotted}`" in error.found
    assert error.action == f"did you mean `{meant}`?"
    assert meant in error.expected


def test_only_the_keys_of_the_chosen_kind_are_offered() -> None:
    assert fault(blocks=[{"kind": "language", "buckets": 3}]).expected == "one of: kind, threshold"


def test_a_mapping_key_that_is_called_like_a_field_is_not_taken_for_it() -> None:
    assert fault(named={"steps": {"step": 3}}).action == "did you mean `steps`?"


def test_a_word_like_no_key_gets_the_list_of_keys() -> None:
    error = fault(zzz=1)
    assert "did you mean" not in error.action
    assert "limits" in error.expected


def test_an_unknown_key_is_said_before_what_is_missing() -> None:
    with pytest.raises(UserError) as caught:
        parse(Recipe, {"nmae": "tiny"}, "recipe.yaml")
    assert "unknown key `nmae` (and 1 more)" in caught.value.found
    assert caught.value.action == "did you mean `name`?"


def test_a_missing_key_a_wrong_type_and_a_wrong_value_name_the_key() -> None:
    with pytest.raises(UserError, match="`name` is missing"):
        parse(Recipe, {}, "recipe.yaml")
    assert "`limits.steps` is 'many'" in fault(limits={"steps": "many"}).found
    error = fault(limits={"steps": 0})
    assert "`limits.steps` is 0" in error.found
    assert error.expected == "greater than or equal to 1"
    assert "nonsense" in str(fault(blocks=[{"kind": "nonsense"}]))


def test_settings_that_do_not_fit_together_are_said_without_the_whole_file() -> None:
    error = fault(name="big", row=[{"steps": 5}] * 50)
    assert "limits.steps must be at least 10" in str(error)
    assert len(str(error)) < 300


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(pydantic.ValidationError):
        Limits().steps = 3  # type: ignore[misc]
