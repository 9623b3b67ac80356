"""HTML to text, so that no page can hang or crash the pipeline.

`fast` is ours (data_prep/extraction): plain Python and numpy, linear and bounded, so it runs in this process under an
alarm. trafilatura (Barbaresi 2021, "Trafilatura: A Web Scraping Library and Command-Line Tool for Text Discovery and
Extraction", ACL demo) and resiliparse (Bevendorff et al. 2018) stand on parsers in C: they run in a child process.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.extractors.base import ExtractorSandbox

from data_prep.blocks.config import ExtractConfig
from data_prep.ledger import REASON
from data_prep.processes import die_with_parent

_WARMUP = "<html><body><p>warm-up</p></body></html>"
# NUL and other control characters are no text. U+2581 is how SentencePiece writes a space, so a page that contains
# it would not come back from the tokenizer as it went in. Lone surrogates cannot be encoded as UTF-8.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class ExtractText(PipelineStep):
    """Replaces the HTML of a response by its main text; documents that came as text (WET, JSONL) are only tidied."""

    type = "EXTRACT"
    name = "extract"

    def __init__(self, config: ExtractConfig) -> None:
        super().__init__()
        self.config = config

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield documents with text; the reason of the others is left in their metadata."""
        extract = _EXTRACTORS[self.config.extractor]
        extract(_WARMUP)  # loads the library or the model here, so that every child starts with it
        with _in_process(extract, self.config) if extract is with_fast else _in_child(extract, self.config) as take:
            for document in data:
                if document.metadata.get("kind") == "response":
                    document.text, reason = take(document.text)
                    if reason:
                        document.metadata[REASON] = reason
                        continue
                document.text = tidy(document.text)
                if document.text:
                    yield document
                else:
                    document.metadata[REASON] = "no_text"


class _Late(BaseException):
    """Raised by the alarm; no Exception, so that nothing on the way takes it for its own."""


class _Alarm:
    """Rings in the main thread, the only one where Python allows it, and only between `set` and `stop`."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.armed = seconds, False
        self.usable = threading.current_thread() is threading.main_thread()
        self.before: Any = None

    def set(self) -> None:
        if self.usable:
            self.armed = True
            self.before = signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def stop(self) -> None:
        self.armed = False  # first: from here on a signal that is under way does nothing
        if self.usable:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self.before or signal.SIG_DFL)

    def _ring(self, number: int, frame: object) -> None:
        if self.armed:
            self.armed = False
            raise _Late


_Take = Callable[[str], tuple[str, str | None]]


@contextmanager
def _in_process(extract: Callable[[str], str | None], config: ExtractConfig) -> Iterator[_Take]:
    """Extraction here, with an alarm around each page."""
    alarm = _Alarm(config.timeout_seconds)

    def take(html: str) -> tuple[str, str | None]:
        try:
            try:
                alarm.set()
                return extract(html) or "", None
            finally:
                alarm.stop()
        except _Late:  # it rings once, so whatever it broke into, even `stop`, is over
            alarm.stop()
            return html, "extraction_timeout"
        except Exception:  # the page is at fault, whatever it is
            return html, "extraction_error"

    yield take


@contextmanager
def _in_child(extract: Callable[[str], str | None], config: ExtractConfig) -> Iterator[_Take]:
    """Extraction in datatrove's sandbox: a child that is killed when it takes too long or breaks, then replaced."""
    guarded = _Guarded(extract, os.getpid())
    with ExtractorSandbox(timeout=config.timeout_seconds, warmup_text=_WARMUP) as sandbox:
        yield lambda html: _extract_one(sandbox, guarded, html)


def tidy(text: str) -> str:
    """Text as the tokenizer can return it: no control characters, unix line ends, no space around it."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2581", " ")
    return _FORBIDDEN.sub("", text).strip()


def _extract_one(sandbox: ExtractorSandbox, extract: Callable[[str], object], html: str) -> tuple[str, str | None]:
    try:
        return str(sandbox.process_document(html, extract) or ""), None
    except TimeoutError:
        return html, "extraction_timeout"
    except EOFError:
        return html, "extraction_crash"
    except Exception:  # whatever the library raised in the child comes back here; the page is at fault
        return html, "extraction_error"


class _Guarded:
    """The extractor as it runs in the child: errors are returned instead of ending the child."""

    def __init__(self, extract: Callable[[str], str | None], parent: int) -> None:
        self.extract, self.parent, self.settled = extract, parent, False

    def __call__(self, html: str) -> object:
        if not self.settled:
            die_with_parent(self.parent)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a stop is the parent's to decide; it kills this child
            self.settled = True
        try:
            return self.extract(html)
        except Exception as error:
            return RuntimeError(f"{type(error).__name__}: {error}")


def with_fast(html: str) -> str | None:
    """Main text by our own extractor: trafilatura's level at several times its speed (docs/extraction.md)."""
    from data_prep.extraction.page import main_text

    return main_text(html)


def with_trafilatura(html: str) -> str | None:
    """Main text by trafilatura in its fast mode (no second opinion of slower extractors)."""
    from trafilatura import extract

    text: str | None = extract(html, fast=True, include_comments=False, include_tables=True)
    return text


def with_resiliparse(html: str) -> str | None:
    """Main text by resiliparse: about nine times faster, less precise on article pages."""
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(html, main_content=True, alt_texts=False))


_EXTRACTORS: dict[str, Callable[[str], str | None]] = {
    "fast": with_fast,
    "trafilatura": with_trafilatura,
    "resiliparse": with_resiliparse,
}
