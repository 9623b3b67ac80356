"""What the scanner knows of HTML: kinds of elements, which of them end others, and telling words in class and id."""

from __future__ import annotations

import re
from functools import lru_cache

INLINE, BLOCK, LINK, BREAK, VOID = range(5)

_INLINE_NAMES = (
    "span b i em strong code tt small big sub sup u s del ins mark abbr acronym cite q kbd samp var time font wbr bdi "
    "bdo data dfn img picture source track input area map nobr strike ruby rb rt rp rtc embed param object video audio "
    "canvas blink center-inline o:p g path use circle rect line polygon text tspan"
)
_BLOCK_NAMES = (
    "html head body div p li ul ol dl dt dd table tbody thead tfoot tr td th caption h1 h2 h3 h4 h5 h6 pre blockquote "
    "section article main aside nav header footer figure figcaption form fieldset label button select option center"
)
_VOID_NAMES = "hr meta link base col frame"

# What is not here is a block: an unknown element (a web component) most often wraps blocks.
KIND: dict[str, int] = (
    dict.fromkeys(_BLOCK_NAMES.split(), BLOCK)
    | dict.fromkeys(_INLINE_NAMES.split(), INLINE)
    | dict.fromkeys(_VOID_NAMES.split(), VOID)
    | {"a": LINK, "br": BREAK}
)

# An opening tag ends these where they are the innermost open elements (HTML standard, 13.1.2.4, optional tags).
_CELLS = frozenset({"td", "th", "p"})
CLOSES: dict[str, frozenset[str]] = {
    "li": frozenset({"li", "p"}),
    "dt": frozenset({"dt", "dd", "p"}),
    "dd": frozenset({"dt", "dd", "p"}),
    "td": _CELLS,
    "th": _CELLS,
    "tr": _CELLS | {"tr"},
    "tbody": _CELLS | {"tr", "thead", "tbody", "caption", "colgroup"},
    "tfoot": _CELLS | {"tr", "thead", "tbody"},
    "option": frozenset({"option"}),
    "optgroup": frozenset({"option", "optgroup"}),
}
PARAGRAPH_ONLY = frozenset({"p"})

# Elements as features, in the order of the bits; several names may share one.
TAG_GROUPS: tuple[frozenset[str], ...] = tuple(
    frozenset(names.split())
    for names in (
        "p",
        "li",
        "h1",
        "h2 h3",
        "h4 h5 h6",
        "td th",
        "table",
        "ul ol menu",
        "dl dt dd",
        "pre",
        "blockquote",
        "nav",
        "header",
        "footer",
        "aside",
        "main",
        "article",
        "section",
        "form fieldset",
        "button select option label legend",
        "figure figcaption",
        "address details summary dialog",
        "noscript",
    )
)

# Stems of words in class, id, role, itemprop and style, each group a bit; matched at any place of a word, so that
# "maincontent" counts as two.
HINT_GROUPS: tuple[str, ...] = (
    "nav|menu|crumb|^toc|^tabs?$|sitemap|^skip",
    "^pager|paginat|^prev|^next|headerlink|^jump",
    "foot|copyright|^legal|imprint|colophon",
    "header|masthead|topbar|banner|^logo|brand",
    "side|widget|^rail$|secondary",
    "comment|disqus|respond|^repl",
    "^ads?$|advert|sponsor|promo|^teaser|adslot|^dfp",
    "^relat|recomm|popular|latest|trending|^also$|recent|more$|^most",
    "^shar|social|follow|twitter|facebook|whatsapp|addthis",
    "^meta|byline|author|^date|publish|posted|^time|timestamp",
    "^tags?$|categor|keyword|^label|topic",
    "article|story|^blog|hentry|editorial",
    "^post|^entry",
    "content|body|^text|prose|markdown|^rich",
    "^main|primary|^page$|wrapper|container",
    "^hid|^sronly|visually|invisible|^screen|noprint|^none$",
    "modal|popup|overlay|cookie|consent|gdpr|newsletter|subscri|^sign|^login|register|paywall|alert|toast",
    "caption|credit|figure|gallery|^imag|photo|slide|carousel|media|video|player",
    "title|headline|heading|^lead|^intro|summary|excerpt|standfirst|abstract",
    "list|grid|^card|^item|product|result|^tile",
    "thread|message|answer|question|forum|discussion|^user|member|avatar|profile|signature",
    "code|highlight|source|example|syntax|^pre$",
    "search|^form|input|button|^btn|^cta|filter|^sort|toolbar|dropdown|select",
    "price|^cart|shop|^buy|review|rating|^spec|descri|detail|feature",
    "^note|quote|^faq|accordion|^steps?$|^tips?$|warning|table",
    "^col|^row$|left|right|^block|module|section|panel|^box",
)

# By the last words of attributes' names: "data-testid" is one of them.
_TELLING = re.compile(
    r"""(?:class|id|role|itemprop|style|hidden)\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s>"']++))""", re.I
)
_STEMS = tuple(re.compile(group) for group in HINT_GROUPS)
_WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+")
_MOST_WORDS = 40  # of one tag: generated class lists can be endless
TAG_BITS = {name: 1 << bit for bit, names in enumerate(TAG_GROUPS) for name in names}
BITS = len(TAG_GROUPS) + len(HINT_GROUPS)


def hint_bits(attributes: str) -> int:
    """The hint groups that an opening tag's attributes name, above the bits of the elements."""
    bits = words = 0
    for double, single, bare in _TELLING.findall(attributes):
        for word in _WORD.findall(double or single or bare):
            bits |= _word_bits(word)
            words += 1
            if words == _MOST_WORDS:
                return bits
    return bits


@lru_cache(maxsize=1 << 16)
def _word_bits(word: str) -> int:
    word = word[:40].lower()
    return sum(1 << (len(TAG_GROUPS) + bit) for bit, stem in enumerate(_STEMS) if stem.search(word))
