"""HTML to text, in a process of its own so that no page can hang or crash the pipeline.

trafilatura (Barbaresi 2021, "Trafilatura: A Web Scraping Library and Command-Line Tool for Text Discovery and
Extraction", ACL demo) or resiliparse (Bevendorff et al. 2018).
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator

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
    """Replaces the HTML of a response by its main text; documents that came as text (WET, JSONL) are only tidied.

    The work runs in datatrove's sandbox: a child process that is killed when a page takes longer than the time-out
    or breaks it, and replaced for the next page.
    """

    type = "EXTRACT"
    name = "extract"

    def __init__(self, config: ExtractConfig) -> None:
        super().__init__()
        self.config = config

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield documents with text; the reason of the others is left in their metadata."""
        extract = _EXTRACTORS[self.config.extractor]
        guarded = _Guarded(extract, os.getpid())
        extract(_WARMUP)  # loads the library here, so that every child starts with it
        with ExtractorSandbox(timeout=self.config.timeout_seconds, warmup_text=_WARMUP) as sandbox:
            for document in data:
                if document.metadata.get("kind") == "response":
                    document.text, reason = _extract_one(sandbox, guarded, document.text)
                    if reason:
                        document.metadata[REASON] = reason
                        continue
                document.text = tidy(document.text)
                if document.text:
                    yield document
                else:
                    document.metadata[REASON] = "no_text"


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
    "fast": with_resiliparse,
    "trafilatura": with_trafilatura,
    "resiliparse": with_resiliparse,
}
