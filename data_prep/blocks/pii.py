"""Masks personal data and keys: e-mail and public IP addresses as FineWeb does (Penedo et al. 2024, section 3.7),
telephone numbers, and private keys and access tokens of well-known forms.

One mask of each kind: datatrove's own rotate through a list, so that the text of a document would depend on the
documents before it, and with that on how the input is cut into tasks.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from datatrove.pipeline.formatters.base import BaseFormatter

from data_prep.blocks.config import PiiConfig

EMAIL_MASK = "email@example.com"
IP_MASK = "22.214.171.124"
PHONE_MASK = "+1 202 555 0100"  # of the range that is kept for fiction
KEY_MASK = "REDACTED_KEY"

_LOCAL_CHARACTERS = 320
_DOMAIN_CHARACTERS = 255
_WORDS_BEFORE = 24
_PEM_CHARACTERS = 20_000
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL = re.compile(rf"\b{_ATOM}(?:\.{_ATOM})*\Z")
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
    r"|\[(?:[0-9]{1,3}\.){3}[0-9]{1,3}\]"
)
_IP = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_BEFORE_NONE = re.compile(r"[\d.]\Z|\d,\Z")
_AFTER_NONE = re.compile(r"\d|\.\d")
_COUNTED = re.compile(r"(?:\bv|ver|version|release|build|section|sec|chapter|clause|§|#)\.?:?\s*\Z", re.I)

_GAP = r"[ .\-/\u00a0]"
_INTERNATIONAL = rf"(?:\+|\b00){_GAP}?[1-9]\d{{0,2}}(?:{_GAP}?\(?\d{{1,5}}\)?){{2,6}}"
_AMERICAN = r"(?:\b1[-. ])?(?:\([2-9]\d\d\) ?|\b[2-9]\d\d(?P<gap>[-. ]))[2-9]\d\d(?(gap)(?P=gap)|[-. ])\d{4}"
_FRENCH = r"(?<!:)\b0[1-9](?P<pair>[ .-])\d\d(?P=pair)\d\d(?P=pair)\d\d(?P=pair)\d\d"
_PHONE = re.compile(rf"(?<![\d.,/-])(?<!\d )(?:{_INTERNATIONAL}|{_AMERICAN}|{_FRENCH})(?!\d)(?![.,/-]\d)")
_DIGITS = re.compile(r"[+(]{0,2}\d[\d .\-/()\u00a0]{5,60}\d")  # every number lies in one of these
_NAMED_PHONE = re.compile(r"[(]?\d(?:[ .\-/()\u00a0]{0,2}\d){5,14}(?!\d)(?![.,/-]\d)")
_NAME = re.compile(
    r"\b(?:tel|t[eé]l[eé]?(?:ph|f)\w{2,5}|telefax|fax|phone|mobil\w{0,3}|handy|m[oó]vil|whatsapp|rufnummer)"
    r"\b\.?(?: ?(?:no|nr|number)\b\.?)?[:\s]{1,3}\Z",
    re.I,
)
_FEWEST_DIGITS, _MOST_DIGITS = 8, 15

_TOKENS = {
    "AKIA": r"AKIA[A-Z2-7]{16}",
    "ASIA": r"ASIA[A-Z2-7]{16}",
    "ghp_": r"ghp_[A-Za-z0-9]{36}",
    "gho_": r"gho_[A-Za-z0-9]{36}",
    "ghs_": r"ghs_[A-Za-z0-9]{36}",
    "ghu_": r"ghu_[A-Za-z0-9]{36}",
    "ghr_": r"ghr_[A-Za-z0-9]{36,76}",
    "github_pat_": r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
    "glpat-": r"glpat-[A-Za-z0-9_-]{20}",
    "hf_": r"hf_[A-Za-z]{34}",
    "xox": r"xox[abeoprs]-(?=[A-Za-z-]*\d)[A-Za-z0-9-]{20,250}",
    "AIza": r"AIza[A-Za-z0-9_-]{35}",
    "sk-": r"sk-(?:proj-|svcacct-|ant-)[A-Za-z0-9_-]{40,250}|sk-[A-Za-z0-9]{48}",
    "eyJ": r"eyJ[A-Za-z0-9_-]{10,4000}\.eyJ[A-Za-z0-9_-]{10,8000}\.[A-Za-z0-9_-]{20,2000}",
}
_PATTERNS = {
    mark: re.compile(rf"(?<![A-Za-z0-9_-])(?:{pattern})(?![A-Za-z0-9_-])") for mark, pattern in _TOKENS.items()
}
_PEM_MARK = "PRIVATE KEY"
_PEM = re.compile(
    r"-----BEGIN (?P<kind>[A-Z0-9 ]{0,20}PRIVATE KEY(?: BLOCK)?)-----"
    rf"(?:[\s\S]{{0,{_PEM_CHARACTERS}}}?-----END (?P=kind)-----|(?:\s*\n[A-Za-z0-9+/=]{{4,}}(?=\s*(?:\n|\Z))){{0,400}})"
)


class MaskPii(BaseFormatter):
    """Puts masks in the place of what the configuration names; every other character of the text stays."""

    name = "pii"

    def __init__(self, config: PiiConfig) -> None:
        super().__init__()
        self.config = config

    def format(self, text: str) -> str:
        """The text with masks."""
        if self.config.keys:
            text = mask_keys(text)
        if self.config.emails and "@" in text:
            text = mask_emails(text)
        if self.config.ip_addresses:
            text = _IP.sub(_masked_ip, text)
        if self.config.phone_numbers:
            text = _DIGITS.sub(_masked_phones, text)
        return text


def mask_keys(text: str) -> str:
    """Private key blocks and access tokens."""
    if _PEM_MARK in text:
        text = _PEM.sub(KEY_MASK, text)
    for mark, pattern in _PATTERNS.items():
        if mark in text:
            text = pattern.sub(KEY_MASK, text)
    return text


def mask_emails(text: str) -> str:
    """E-mail addresses (RFC 5322's usual form): around every @, so that a long text without any costs nothing."""
    pieces: list[str] = []
    done, at = 0, text.find("@")
    while at >= 0:
        local = _LOCAL.search(text[max(done, at - _LOCAL_CHARACTERS) : at])
        domain = _DOMAIN.match(text[at + 1 : at + 1 + _DOMAIN_CHARACTERS]) if local else None
        if local and domain:
            pieces += [text[done : at - len(local[0])], EMAIL_MASK]
            done = at + 1 + domain.end()
        at = text.find("@", max(at + 1, done))
    return "".join([*pieces, text[done:]]) if pieces else text


def _masked_ip(match: re.Match[str]) -> str:
    """Public addresses alone; four numbers after a word such as version are no address."""
    before = match.string[max(0, match.start() - _WORDS_BEFORE) : match.start()]
    if _BEFORE_NONE.search(before) or _AFTER_NONE.match(match.string, match.end()) or _COUNTED.search(before):
        return match[0]
    try:
        return IP_MASK if ip_address(match[0]).is_global else match[0]
    except ValueError:
        return match[0]


def _masked_phones(run: re.Match[str]) -> str:
    """Telephone numbers in a run of digits and what may stand between them."""
    text, start = run.string, run.start()
    if _NAME.search(text[max(0, start - _WORDS_BEFORE) : start]):
        named = _NAMED_PHONE.match(text, start)
        if named and _digits(named[0]) >= _FEWEST_DIGITS - 2:
            return PHONE_MASK + run[0][named.end() - start :]
    pieces: list[str] = []
    done = start
    for found in _PHONE.finditer(text, start, run.end()):
        if _FEWEST_DIGITS <= _digits(found[0]) <= _MOST_DIGITS:
            pieces += [text[done : found.start()], PHONE_MASK]
            done = found.end()
    return "".join([*pieces, text[done : run.end()]])


def _digits(shown: str) -> int:
    return sum(character.isdigit() for character in shown)
