"""Accuracy of language identification on labelled sentences: `python -m benchmarks.data.languages [FILE]`.

FILE has tab-separated columns; the third is the ISO 639-3 label, the fourth the text (the layout of CLD2's Tatoeba
test). Counted are the languages that fastText's model knows; the last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.data.measured import ROOT
from data_prep.blocks.language import cld2_languages, fasttext_languages, identify

SENTENCES = ROOT.parent / "shared" / "data" / "langid" / "tatoeba_long.txt"
# ISO 639-3 -> ours. True synonyms alone: a macrolanguage and the one member that goes by its name (zho = cmn,
# msa = zsm, aze = azj, est = ekk, lav = lvs, fas = pes, ara = arb, nor = nob, sqi = als of ISO, kur = kmr, mlg = plt,
# uzb = uzn, swa = swh, yid = ydd, ori = ory, nep = npi). Not so hbs: hr, bs and sr are told apart.
ISO_639_1 = {
    **{"afr": "af", "ara": "ar", "arb": "ar", "asm": "as", "aze": "az", "azj": "az", "bel": "be", "ben": "bn"},
    **{"bos": "bs", "bre": "br", "bul": "bg", "cat": "ca", "ces": "cs", "cmn": "zh", "zho": "zh", "cym": "cy"},
    **{"dan": "da", "deu": "de", "ell": "el", "eng": "en", "epo": "eo", "est": "et", "ekk": "et", "eus": "eu"},
    **{"fas": "fa", "pes": "fa", "fin": "fi", "fra": "fr", "fry": "fy", "gla": "gd", "gle": "ga", "glg": "gl"},
    **{"guj": "gu", "hat": "ht", "heb": "he", "hin": "hi", "hrv": "hr", "hun": "hu", "hye": "hy", "ind": "id"},
    **{"isl": "is", "ita": "it", "jav": "jv", "jpn": "ja", "kan": "kn", "kat": "ka", "kaz": "kk", "khm": "km"},
    **{"kin": "rw", "kir": "ky", "kor": "ko", "kur": "ku", "kmr": "ku", "lao": "lo", "lat": "la", "lav": "lv"},
    **{"lvs": "lv", "lit": "lt", "ltz": "lb", "mal": "ml", "mar": "mr", "mkd": "mk", "mlg": "mg", "plt": "mg"},
    **{"mlt": "mt", "mon": "mn", "msa": "ms", "zsm": "ms", "mya": "my", "nep": "ne", "npi": "ne", "nld": "nl"},
    **{"nno": "nn", "nob": "no", "nor": "no", "nya": "ny", "oci": "oc", "ori": "or", "ory": "or", "pan": "pa"},
    **{"pol": "pl", "por": "pt", "pus": "ps", "ron": "ro", "rus": "ru", "sin": "si", "slk": "sk", "slv": "sl"},
    **{"snd": "sd", "som": "so", "sot": "st", "spa": "es", "sqi": "sq", "srp": "sr", "sun": "su", "swa": "sw"},
    **{"swh": "sw", "swe": "sv", "tam": "ta", "tat": "tt", "tel": "te", "tgk": "tg", "tgl": "tl", "tha": "th"},
    **{"tuk": "tk", "tur": "tr", "uig": "ug", "ukr": "uk", "urd": "ur", "uzb": "uz", "uzn": "uz", "vie": "vi"},
    **{"yid": "yi", "ydd": "yi", "yor": "yo"},
}


def measure(path: Path) -> dict[str, Any]:
    """Accuracy over the languages that are known, how many these are, and the share of lines in them."""
    right: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    outside = right_outside = 0
    confused: Counter[str] = Counter()
    began = time.process_time()
    for line in path.read_text("utf-8").splitlines()[1:]:
        columns = line.split("\t")
        truth = ISO_639_1.get(columns[2], columns[2])
        said, _ = identify(columns[3])
        if truth not in fasttext_languages():
            outside, right_outside = outside + 1, right_outside + (said == truth)
            continue
        counted[truth] += 1
        right[truth] += said == truth
        if said != truth:
            confused[f"{truth}->{said}"] += 1
    seconds = time.process_time() - began
    lines = counted.total()
    return {
        "language_accuracy": round(right.total() / lines, 4),
        "language_macro_accuracy": round(sum(right[name] / counted[name] for name in counted) / len(counted), 4),
        "languages_known": len(counted),
        "languages_in_file": len(counted) + len({line.split("\t")[2] for line in _lines(path)} - _known_codes()),
        "coverage": round(lines / (lines + outside), 4),
        "accuracy_all_lines": round((right.total() + right_outside) / (lines + outside), 4),
        "lines": lines,
        "with_cld2": bool(cld2_languages()),
        "cpu_ms_per_text": round(1000 * seconds / (lines + outside), 3),
        "confused": dict(confused.most_common()),
    }


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()[1:]


def _known_codes() -> set[str]:
    known = fasttext_languages()
    return {code for code, name in ISO_639_1.items() if name in known} | set(known)


if __name__ == "__main__":
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("sentences", type=Path, nargs="?", default=SENTENCES)
    print(json.dumps(measure(given.parse_args().sentences), ensure_ascii=False))
