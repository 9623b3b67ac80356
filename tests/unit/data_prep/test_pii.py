"""Masks: what they take, and what looks like it and stays."""

import json
import lzma
import random
import time
from pathlib import Path

import pytest
from datatrove.data import Document
from datatrove.pipeline.formatters.pii import PIIFormatter

from data_prep.blocks.config import PiiConfig
from data_prep.blocks.pii import EMAIL_MASK, IP_MASK, KEY_MASK, PHONE_MASK, MaskPii

ALL = MaskPii(PiiConfig(phone_numbers=True))
TEXTS = Path(__file__).parents[4] / "shared" / "data" / "text" / "openwebtext_1000.jsonl.xz"

EMAILS = ["jane.doe+x@mail.example.org", "o'hara@a-b.co", "x_1@[192.0.2.1]"]
PUBLIC = ["8.8.8.8", "151.101.1.69"]
PHONES = [
    *("+1 212 555 0123", "+44 20 7946 0958", "+49 (0)30 901820", "+33 1 23 45 67 89", "+34 912 345 678"),
    *("0049 30 901820", "(212) 555-0123", "212-555-0123", "212.555.0123", "1-800-555-0199", "01 23 45 67 89"),
    *("01.23.45.67.89", "+4930901820", "+91-98765-43210"),
]
KEYS = [
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "A" * 22 + "_" + "b" * 59,
    "xoxb-123456789012-abcdefABCDEF",
    "AIza" + "Sy0-_" * 7,
    "sk-" + "a1" * 24,
    "sk-proj-" + "a-1_" * 12,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\nAAAA\n-----END EC PRIVATE KEY-----",
]
STAYS = [
    *("10.0.0.1", "127.0.0.1", "192.168.1.1", "version 8.8.4.4", "v1.12.3.4", "1.2.3", "300.1.1.1", "1.2.3.4.5"),
    *("2024-01-31", "31.12.2024", "31/12/2024 10:30", "12/31/2024", "2019-2024", "10:30:00", "1990 1991 1992 1993"),
    *("978-3-16-148410-0", "ISBN 0-306-40615-2", "9783161484100", "ISSN 2049-3630", "$1,234,567.89", "12.345.678 €"),
    *("1 234 567 890", "3.14159265358979", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "123-45-6789"),
    *("2001:db8::1", "@handle", "a @ b", "user@localhost", "x@", "me@example", "100-200-3000", "0.5-0.25"),
    *("AKIA", "ghp_short", "sk-learn", "sk-toggleable__content-and-long-names-of-classes", "eyJ.eyJ.x", "xoxo-love"),
    *("-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----", "task-" + "a1" * 24, "f" * 64, "1.800.555"),
    *("10.1000/182-2024", "arXiv:2101.00027", "tel aviv 2019", "phone 12", "5 +3 -2 +7 12", "n = 1000 2000 3000"),
]


def masked(text: str) -> str:
    return ALL.format(f"Before {text} after.").removeprefix("Before ").removesuffix(" after.")


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        *((text, EMAIL_MASK) for text in EMAILS),
        *((text, IP_MASK) for text in PUBLIC),
        *((text, PHONE_MASK) for text in PHONES),
        *((text, KEY_MASK) for text in KEYS),
        ("Tel.: 030/901820", f"Tel.: {PHONE_MASK}"),
        ("Téléphone : 0123456789", f"Téléphone : {PHONE_MASK}"),
        ("Fax: (030) 90 18 20", f"Fax: {PHONE_MASK}"),
    ],
)
def test_masks(text: str, mask: str) -> None:
    assert masked(text) == mask
    assert ALL.format(text) == mask


@pytest.mark.parametrize("text", STAYS)
def test_leaves(text: str) -> None:
    assert masked(text) == text


def test_a_key_block_that_breaks_off() -> None:
    text = "See -----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\nAAAA\n\nThis is prose.\n"
    assert ALL.format(text) == f"See {KEY_MASK}\n\nThis is prose.\n"


def test_one_mask_of_each_kind_whatever_came_before() -> None:
    document = Document(text="a@b.org, 8.8.8.8; c@d.org, 9.9.9.9", id="1")
    (out,) = MaskPii(PiiConfig()).run([document])
    assert out.text == f"{EMAIL_MASK}, {IP_MASK}; {EMAIL_MASK}, {IP_MASK}"


def test_switches() -> None:
    text = f"a@b.org 8.8.8.8 +44 20 7946 0958 {KEYS[0]}"
    off = PiiConfig(emails=False, ip_addresses=False, phone_numbers=False, keys=False)
    assert MaskPii(off).format(text) == text
    assert MaskPii(off.model_copy(update={"keys": True})).format(text) == text.replace(KEYS[0], KEY_MASK)
    assert "+44 20 7946 0958" in MaskPii(PiiConfig()).format(text)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    if not TEXTS.exists():
        pytest.skip("the real texts of ../shared/data/text are not on this machine")
    with lzma.open(TEXTS) as lines:
        return [json.loads(line)["text"] for line in lines]


def test_emails_are_those_of_datatrove(texts: list[str]) -> None:
    theirs = PIIFormatter(remove_ips=False, email_replacement=EMAIL_MASK)
    ours = MaskPii(PiiConfig(ip_addresses=False, keys=False))
    assert sum(EMAIL_MASK in ours.format(text) for text in texts) > 20
    assert [ours.format(text) for text in texts] == [theirs.format(text) for text in texts]


def test_a_long_text_takes_no_longer_than_its_length() -> None:
    generator = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789+/-. ()"
    seconds = []
    for length in (50_000, 400_000):
        text = "".join(generator.choices(letters, k=length // 2)) + "a@b" * (length // 12) + "+1 2" * (length // 16)
        began = time.process_time()
        ALL.format(text)
        seconds.append(time.process_time() - began)
    assert seconds[1] < 40 * seconds[0] + 0.05
