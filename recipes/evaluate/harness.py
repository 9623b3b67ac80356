"""Local tasks of lm-evaluation-harness, through its Python API: no network, no index of the tasks that it ships."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.errors import SlipwayError, UserError
from kit.files import disk_full_as_failure
from recipes.chat.template import ChatTemplate
from recipes.evaluate.config import TasksConfig
from recipes.evaluate.text import begin_id

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Tasks:
    """Loaded tasks, ready to be asked of one model after another."""

    config: TasksConfig
    loaded: dict[str, Any]

    def measure(self, model: Any, tokenizer: Any, batch_samples: int) -> dict[str, dict[str, Any]]:
        """What a loaded model reaches.

        Returns:
            Task's name -> metric (the first that the task names), its value, standard error (None where lm-eval gives
            none) and number of samples; `chance` for multiple choice: what guessing reaches; `metrics` with them all.

        Raises:
            UserError: If the chat format is wanted and the model's tokenizer has none.
        """
        from lm_eval import evaluate
        from lm_eval.models.huggingface import HFLM

        if self.config.chat_format:
            give_template(tokenizer)
        with _quiet():
            # lm-eval would take the tokenizer's beginning token, which a model needn't have been trained with.
            prefix = begin_id(model, tokenizer)
            wrapped = HFLM(
                model, backend="causal", tokenizer=tokenizer, batch_size=batch_samples, prefix_token_id=prefix
            )
            # Not simple_evaluate: it starts pip and a dozen other programs to describe the machine, for every model.
            results = evaluate(
                wrapped,
                {"tasks": self.loaded},
                limit=self.config.limit,
                apply_chat_template=self.config.chat_format,
                fewshot_as_multiturn=self.config.chat_format,
            )
        assert results is not None, "lm-eval answers its first rank"
        return {name: _figures(name, task, results) for name, task in self.loaded.items()}


@contextlib.contextmanager
def open_tasks(config: TasksConfig) -> Iterator[Tasks]:
    """Loads tasks; what the datasets library makes of their files lies in a temporary folder.

    Raises:
        UserError: If a folder or a task is missing or malformed.
    """
    folders = [_folder(name) for name in config.folders]
    for folder in folders:
        _check_files(folder)
    import datasets
    from lm_eval.tasks import TaskManager

    cache = datasets.config.HF_DATASETS_CACHE
    with tempfile.TemporaryDirectory(prefix="slipway-tasks-") as temporary:
        datasets.config.HF_DATASETS_CACHE = Path(temporary)
        try:
            with _quiet():
                manager = TaskManager(include_path=[str(folder) for folder in folders], include_defaults=False)
                loaded = _load(manager, config, folders)
                _set_few_shot(loaded, config.few_shot)
            yield Tasks(config, loaded)
        finally:
            datasets.config.HF_DATASETS_CACHE = cache


def give_template(tokenizer: Any) -> None:
    """Gives a tokenizer without a chat template the kit's, so that a base model is asked the same as its descendants.

    Raises:
        UserError: If it lacks the template's tokens.
    """
    if not getattr(tokenizer, "chat_template", None):
        tokenizer.chat_template = ChatTemplate.of(tokenizer).jinja()


def _folder(name: str) -> Path:
    found = next((path for path in (Path(name), ROOT / name) if path.is_dir()), None)
    if found is None:
        raise UserError(
            f"no folder {name} (tasks.folders)",
            expected="a folder with tasks of lm-evaluation-harness: YAML files with `task: NAME`",
            action="mend the path; relative ones start in the working folder, or else where Slipway lies",
        )
    return found.resolve()


def _check_files(folder: Path) -> None:
    """lm-eval leaves out what it can't read in silence; here it is an error."""
    from lm_eval.tasks._yaml_loader import load_yaml

    files = sorted(folder.rglob("*.yaml"))
    if not files:
        raise UserError(
            f"{folder}: no YAML file (tasks.folders)",
            expected="tasks of lm-evaluation-harness: YAML files with `task: NAME`",
            action="choose another folder",
        )
    for file in files:
        try:
            load_yaml(file, resolve_func=False)
        except Exception as error:  # lm-eval's YAML library has errors of its own
            raise UserError(
                f"{file}: {' '.join(str(error).split())}",
                expected="a task of lm-evaluation-harness in YAML",
                action="mend the file, or take it out of the folder",
            ) from None


def _load(manager: Any, config: TasksConfig, folders: list[Path]) -> dict[str, Any]:
    unknown = [name for name in config.names if name not in manager.all_tasks]
    names = config.names or manager.all_subtasks
    if unknown or not names:
        raise UserError(
            f"no task {', '.join(unknown)} in {', '.join(map(str, folders))}"
            if unknown
            else f"no task in {folders[0]}",
            expected=f"one of: {', '.join(manager.all_tasks)}"
            if manager.all_tasks
            else "a YAML file with `task: NAME`",
            action="mend tasks.names or tasks.folders",
        )
    loaded: dict[str, Any] = {}
    for name in names:
        file = manager.task_index[name].yaml_path
        # Data files are named relative to the YAML file that names them, wherever the run was started.
        try:
            with (
                contextlib.chdir(file.parent if file else folders[0]),
                disk_full_as_failure(Path(tempfile.gettempdir())),
            ):
                loaded |= manager.load([name])["tasks"]
        except SlipwayError:
            raise
        except Exception as error:  # whatever a task's YAML, its functions and its data can raise
            words = " ".join(str(error).split())
            raise UserError(
                f"task {name} ({file or 'a tag'}) does not load: {type(error).__name__}: {words}",
                expected="a task of lm-evaluation-harness whose data files lie beside it; nothing is downloaded",
                action="mend its YAML file or its data",
            ) from None
    return loaded


def _set_few_shot(loaded: dict[str, Any], wanted: int | None) -> None:
    """As lm_eval.simple_evaluate does: a task that says 0 means it; one that says nothing has none."""
    from lm_eval.defaults import DEFAULT_OTHER_SEED

    for task in loaded.values():
        own = task.get_config("num_fewshot")
        if own != 0:
            task.set_config(key="num_fewshot", value=own or 0 if wanted is None else wanted)
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


def _figures(name: str, task: Any, results: Any) -> dict[str, Any]:
    found = results["results"][name]
    metrics = {}
    for key, value in found.items():
        metric, comma, selection = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        error = found.get(f"{metric}_stderr,{selection}")
        named = metric if selection == "none" else key
        metrics[named] = {"value": float(value), "stderr": float(error) if isinstance(error, float) else None}
    first = next(iter(metrics))
    samples = results["samples"][name]
    answer = {"metric": first, **metrics[first], "samples": int(results["n-samples"][name]["effective"])}
    if task.OUTPUT_TYPE == "multiple_choice":
        answer["chance"] = sum(1 / len(task.doc_to_choice(sample["doc"])) for sample in samples) / len(samples)
    return {**answer, "metrics": metrics}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps progress bars and the harness's remarks out of the log; exceptions pass."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
