"""What is checked about a cluster before anything is asked of AWS, and what AWS's own answers mean."""

from __future__ import annotations

import ipaddress
import re

from kit.errors import RunFailure, SlipwayError, UserError
from kit.target import AwsSettings

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
NETWORK_SIZES = range(16, 29)
NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "NoAuthTokenError")
BAD_CREDENTIALS = ("AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException")
OLD_CREDENTIALS = (
    *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"),
    *("SSOTokenLoadError", "UnauthorizedSSOTokenError", "TokenRetrievalError", "LoginTokenLoadError"),
)
FORBIDDEN = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException")


def check_settings(settings: AwsSettings) -> None:
    """Check what can be checked without AWS.

    Raises:
        UserError: A setting can't be right; names its key.
    """
    if not NAME.fullmatch(settings.cluster):
        raise _wrong("cluster", settings.cluster, "small letters, digits and dashes, 31 at most, a letter first")
    network = _network("network", settings.network)
    if network.prefixlen not in NETWORK_SIZES:
        raise _wrong("network", settings.network, "a network between /16 and /28, as AWS takes it")
    if settings.allow_ssh_from is None:
        raise UserError(
            "aws.allow_ssh_from is not set",
            expected="who may reach the hosts by SSH; nothing is opened for everybody by itself",
            action="write your own public address there, such as 203.0.113.7/32",
        )
    if _network("allow_ssh_from", settings.allow_ssh_from).prefixlen < 8:
        raise _wrong("allow_ssh_from", settings.allow_ssh_from, "your own address or network, not the whole internet")
    _check_addresses(settings, network)


def _check_addresses(settings: AwsSettings, network: ipaddress.IPv4Network) -> None:
    given = settings.private_addresses
    if given and len(set(given)) != settings.count:
        raise _wrong("private_addresses", str(given), f"{settings.count} different ones, or none: AWS chooses then")
    for text in given:
        try:
            address = ipaddress.IPv4Address(text)
        except ValueError:
            raise _wrong("private_addresses", text, "an IPv4 address") from None
        offset = int(address) - int(network.network_address)
        if not 4 <= offset < network.num_addresses - 1:
            raise _wrong("private_addresses", text, f"one inside {network}, not its first four or its last one")


def _network(key: str, text: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise _wrong(key, text, f"an IPv4 network such as 10.0.0.0/16 ({error})") from None


def _wrong(key: str, value: str, expected: str) -> UserError:
    return UserError(f"aws.{key} is {value!r}", expected=expected, action=f"change aws.{key} in the target file")


def error_of(code: str, message: str, settings: AwsSettings) -> SlipwayError:
    """AWS's answer in three parts."""
    where = settings.endpoint_url or f"AWS, region {settings.region}"
    if code in NO_CREDENTIALS:
        return UserError(
            f"no credentials for {where}: {message}",
            expected="credentials where AWS's own tools look: AWS_PROFILE, AWS_ACCESS_KEY_ID and _SECRET_, or ~/.aws",
            action="log in with `aws sso login` or set AWS_PROFILE, then again; Slipway stores none",
        )
    if code in OLD_CREDENTIALS or code in BAD_CREDENTIALS:
        what = "have expired" if code in OLD_CREDENTIALS else "were refused"
        return UserError(
            f"the credentials for {where} {what}: {message or code}",
            expected="credentials that are valid now",
            action="log in again (`aws sso login`), or renew AWS_ACCESS_KEY_ID and _SECRET_; clock wrong? mend it",
        )
    if code in FORBIDDEN:
        return UserError(
            f"{where} does not allow it: {message or code}",
            expected="the rights that docs/cloud.md lists",
            action="ask the account's owner for them; nothing was made",
        )
    if code == "InvalidInstanceType":
        return _wrong("instance_type", settings.instance_type, f"an instance type of {where}")
    if code.startswith("InvalidAMIID"):
        return _wrong("image_id", str(settings.image_id), f"an image of {where}: images differ by region")
    return RunFailure(
        f"{where}: {code} {message}".rstrip(),
        expected="an answer",
        action="check the network, aws.region and aws.endpoint_url, then try again",
    )
