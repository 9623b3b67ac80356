"""Where the records of a run go: metrics.jsonl, which is the truth, and views of it that may fail without harm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

from kit.metrics import JsonlSink, StepRecord
from kit.run.directory import RunDirectory
from kit.run.events import append_event
from recipes.stop import Stopped
from recipes.training.config import LoggingConfig


class View(Protocol):
    """A sink beside metrics.jsonl."""

    name: str

    def write(self, record: StepRecord) -> None:
        """Takes one record."""
        ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Takes a table of samples."""
        ...

    def close(self, exit_code: int) -> None:
        """Ends the view: 0 the stage ended well."""
        ...


class Sinks:
    """All sinks of one rank. Only rank 0 writes; on other ranks everything here does nothing.

    Raises:
        RunFailure: If metrics.jsonl can't be written. A view that fails is left out from then on, with one event.
    """

    def __init__(self, run: RunDirectory, views: Mapping[str, Callable[[], View]], first: bool) -> None:
        self._run = run
        self._file = JsonlSink(run.metrics_path) if first else None
        self._views: list[View] = []
        for name, make in views.items() if first else ():
            self._try(name, lambda make=make: self._views.append(make()))  # type: ignore[misc]

    def write(self, record: StepRecord) -> None:
        """Keeps one record."""
        if self._file is not None:
            self._file.write(record)
        self._each(lambda view: view.write(record))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Shows a table of samples in the views; the stage's own artifacts keep it."""
        self._each(lambda view: view.table(name, columns, rows))

    def close(self, exit_code: int = 0) -> None:
        """Closes everything."""
        self._each(lambda view: view.close(exit_code))
        self._views = []
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Sinks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(0 if kind is None or issubclass(kind, Stopped) else 1)

    def _each(self, action: Callable[[View], None]) -> None:
        for view in list(self._views):
            if not self._try(view.name, lambda view=view: action(view)):  # type: ignore[misc]
                self._views.remove(view)

    def _try(self, name: str, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            print(f"warning: sink {name} failed and is left out from here on: {words}", flush=True)
            append_event(self._run, "sink_failed", sink=name, words=words)
            return False
        return True


def open_sinks(run: RunDirectory, logging: LoggingConfig, first: bool) -> Sinks:
    """Opens the sinks that a recipe names."""
    views: dict[str, Callable[[], View]] = {}
    if logging.wandb is not None:
        settings = logging.wandb

        def make() -> View:
            from recipes.training.wandb_view import WandbView

            return WandbView(run, settings)

        views["wandb"] = make
    return Sinks(run, views, first)
