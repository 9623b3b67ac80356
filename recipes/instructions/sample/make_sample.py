"""Makes demo.jsonl: questions about facts that Python's standard library holds, several phrasings a fact.

    python -m recipes.instructions.sample.make_sample --out recipes/instructions/sample/demo.jsonl

The facts are looked up, not written down here: only which ones, and the phrasings of the questions, are ours.
"""

from __future__ import annotations

import argparse
import builtins
import hashlib
import html.entities
import http
import json
import os
import signal
import unicodedata
from collections.abc import Callable, Iterator
from errno import errorcode
from pathlib import Path
from typing import Any, NamedTuple


class Topic(NamedTuple):
    """One kind of fact: which ones, where their values are looked up, questions and the direct answer."""

    name: str
    keys: str
    look_up: Callable[[str], str]
    questions: tuple[str, ...]
    answer: str


def _signal(name: str) -> str:
    return signal.strsignal(signal.Signals[name]) or ""


def _errno(name: str) -> str:
    return os.strerror(next(number for number, known in errorcode.items() if known == name))


def _exception(name: str) -> str:
    return str(getattr(builtins, name).__doc__).rstrip(".")


def _entity(name: str) -> str:
    return unicodedata.name(chr(html.entities.name2codepoint[name])).lower()


TOPICS = (
    Topic(
        "http_status",
        "100 200 201 202 204 206 301 304 305 400 401 403 404 405 408 409 410 411 417 423 425 429 500 501 502 503 504"
        " 508",
        lambda key: http.HTTPStatus(int(key)).phrase,
        (
            "What does HTTP status {} mean?",
            "Explain HTTP status {}.",
            "A web server sent status {}. What is it?",
            "What is the phrase for HTTP {}?",
            "I see code {} in my browser. Why?",
            "Name HTTP code {}.",
        ),
        "HTTP status {} means {}.",
    ),
    Topic(
        "signal",
        "SIGHUP SIGINT SIGQUIT SIGILL SIGABRT SIGBUS SIGFPE SIGKILL SIGSEGV SIGPIPE SIGALRM SIGTERM SIGCHLD SIGCONT"
        " SIGPWR SIGSYS",
        _signal,
        (
            "What does the signal {} mean?",
            "Explain {}.",
            "A process got {}. What is it?",
            "How does Linux describe {}?",
            "My program ended with {}. Why?",
            "Describe the signal {}.",
        ),
        "The signal {} means {}.",
    ),
    Topic(
        "errno",
        "EPERM ENOENT ESRCH EIO EBADF EACCES EFAULT EBUSY EEXIST ENOTDIR EISDIR EINVAL EMFILE EFBIG ESPIPE EMLINK",
        _errno,
        (
            "What does the error {} mean?",
            "Explain {}.",
            "A system call gave {}. What is it?",
            "How does Linux describe {}?",
            "My program failed with {}. Why?",
            "Describe the error {}.",
        ),
        "The error {} means {}.",
    ),
    Topic(
        "exception",
        "AssertionError AttributeError EOFError FileNotFoundError IndentationError IndexError KeyError MemoryError"
        " NameError PermissionError RecursionError SyntaxError TimeoutError TypeError",
        _exception,
        (
            "What does {} mean?",
            "Explain {}.",
            "Python raised {}. What is it?",
            "How does Python describe {}?",
            "My script stopped with {}. Why?",
            "Describe {}.",
        ),
        "Python's {} means {}.",
    ),
    Topic(
        "character",
        "! # % & ( ) * + , / : ; < = > ? @ [ ] ^ _ { | } ~",
        lambda key: unicodedata.name(key).lower(),
        (
            "What is the character {} called?",
            "Name the character {}.",
            "What do you call this sign: {}",
            "What is the Unicode name of {}?",
            "I see {} in a text. What is it?",
            "How do I say {} aloud?",
        ),
        "The character {} is called {}.",
    ),
    Topic(
        "html_entity",
        "amp cent clubs copy deg diams divide empty euro forall hearts hellip infin isin mdash nbsp para pound radic"
        " reg sect shy spades there4 times trade yen",
        _entity,
        (
            "What does &{}; stand for in HTML?",
            "Explain &{}; in HTML.",
            "Which character does &{}; show?",
            "A page holds &{};. What is it?",
            "What is the HTML entity &{};?",
            "Describe &{}; to me.",
        ),
        "In HTML &{}; stands for {}.",
    ),
)

WORDY = "Good question! Well, {} I hope that this helps you."
"""The second style of answers; half of the questions get it. Later stages teach a model to prefer the direct one."""


def _wordy(direct: str) -> str:
    first, rest = direct.split(" ", 1)
    return WORDY.format(f"{first.lower() if first in ('The', 'In') else first} {rest}")


def rows() -> Iterator[dict[str, Any]]:
    """Every question with its answer, the reference that a right answer contains, and what fact it is about."""
    for topic in TOPICS:
        for key in topic.keys.split():
            value = topic.look_up(key)
            direct = topic.answer.format(key, value)
            for question in (words.format(key) for words in topic.questions):
                wordy = hashlib.sha256(question.encode()).digest()[0] % 2
                answer = _wordy(direct) if wordy else direct
                yield {
                    "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
                    "reference": value,
                    "topic": topic.name,
                    "fact": key,
                }


def content() -> str:
    """The whole file."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows())


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("demo.jsonl"))
    parser.parse_args().out.write_text(content(), encoding="utf-8")


if __name__ == "__main__":
    main()
