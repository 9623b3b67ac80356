"""Masks e-mail addresses and public IP addresses, as FineWeb does (Penedo et al. 2024, section 3.7)."""

from __future__ import annotations

from datatrove.pipeline.formatters.pii import PIIFormatter

from data_prep.blocks.config import PiiConfig

# One mask of each kind: datatrove's own rotate through a list, so that the text of a document would depend on the
# documents before it, and with that on how the input is cut into tasks.
EMAIL_MASK = "email@example.com"
IP_MASK = "22.214.171.124"


def mask_pii(config: PiiConfig) -> PIIFormatter:
    """The formatter with this recipe's choices."""
    return PIIFormatter(
        remove_emails=config.emails,
        remove_ips=config.ip_addresses,
        email_replacement=EMAIL_MASK,
        ip_replacement=IP_MASK,
    )
