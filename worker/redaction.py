"""
What may be said of an address or a text where others read it: in errors, logs, messages and ``config show``.

Pure functions of text; what becomes of other values is in ``worker.telemetry.redaction``, and what is written where is
decided by the callers. What cannot be told from a secret is taken for one.
"""

import re
from typing import Final
from urllib.parse import urlsplit

MASK: Final = "***"
MAX_TEXT_CHARS: Final = 16_384
"""A text longer than this keeps its two ends: a traceback names its cause in the last line."""

# Every pattern takes time in proportion to the text: what repeats is bounded, or begins with what it cannot hold and
# gives nothing back ("++").
# An address within a text begins behind its scheme, whatever stands before that, and ends where the next one begins.
_ADDRESS = re.compile(r"://((?:(?!://)[^\s?#])*)((?:[?#]\S*)?)")
_HOST = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
# A name, a colon and no port: a password, of which the rest may have been cut off, or a bracket around no address.
_NO_HOST = re.compile(r"[\w.%+~-]*:(?!\d{0,5}(?:\W|$))|\[(?![0-9A-Fa-f:.]+\])")
_SPACED_PASSWORD = re.compile(r"://[\w.%+~-]{0,64}:(?!\d{0,5}(?:\W|$))\S{0,128}[ \t][^\n]{0,128}@")

# Of what has no scheme: whatever is asked after a question mark, and what has a name of a secret. All that follows goes
# too, for a value may hold what else would end it.
_QUERY = re.compile(r"\?[^\s=?#\"<>]++=[^\s\"<>]*")
_SECRET_NAMES = "sig", "signature", "token", "key", "secret", "password", "passwd", "pwd", "credential", "auth", "hmac"
_SECRET_END = "|".join(f"(?<={name})" for name in _SECRET_NAMES)
_PARAMETER = re.compile(
    rf"([&;#](?:x-[a-z]++-[a-z0-9-]++|[a-z0-9_.-]++(?:{_SECRET_END})))=[^\s\"<>]*",
    re.IGNORECASE,
)
_ENCODED_BYTES = re.compile(r"[A-Za-z0-9+/_=-]{256,}")

# A visible sign of ASCII as JSON and as an address may write it, the latter encoded however often. White space stays
# as it is, for an address ends at it, and with it the redaction; so does what steers a terminal.
_VISIBLE = "2[1-9a-fA-F]|[3-6][0-9a-fA-F]|7[0-9a-eA-E]"
_ESCAPED = re.compile(rf"\\(?:([\\/])|u00({_VISIBLE}))")
_PERCENT = re.compile(rf"%(?:25)*({_VISIBLE})")
_MOST_NESTED: Final = 4
"""JSON within JSON within JSON, so deep: known hole, in what is nested deeper a query would not be seen."""

# Unicode's categories Cc, Cf and Cs, and the two signs that end a line: among them what turns the direction of a text.
_INVISIBLE = (
    "\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e007f"
)
_CONTROL = re.compile(rf"[\x00-\x08\x0a-\x1f{_INVISIBLE}]")
_CONTROL_BUT_NEWLINE = re.compile(rf"[\x00-\x08\x0b-\x1f{_INVISIBLE}]")


def redact_url(url: str) -> str:
    """
    The URL without userinfo, query and fragment, each of which may hold a secret; of a ``data:`` URL, its media type.

    A path may hold an ``@`` behind a whole host name; behind anything else it ends a name and a password.
    """
    if url[:5].lower() == "data:":
        return re.split("[;,]", url, maxsplit=1)[0]
    url = _without_values(_without_escapes(url))
    try:
        urlsplit(url)
    except ValueError:
        return "<unreadable url>"
    scheme, found, rest = url.partition("://")
    address, mark, query = _split(rest if found else url)
    if not found:
        return mask_userinfo(address)
    return f"{scheme.lower()}://{_bare(address, mark + query)}"


def mask_url(url: str) -> str:
    """
    A secret address for its operator: scheme, host and path, and ``***`` where userinfo, query or fragment were.

    A password may hold an unescaped ``/``, ``?`` or ``#``: whatever stands before the last ``@`` is userinfo.
    """
    scheme, found, rest = url.partition("://")
    if not found:
        return MASK
    _, has_userinfo, address = rest.rpartition("@")
    # The last @ may have stood in a query, which then goes on with its next value.
    bare, *hidden = re.split("[?#&;]", address, maxsplit=1)
    return f"{scheme}://{MASK + '@' if has_userinfo else ''}{bare}{'?' + MASK if hidden else ''}"


def mask_userinfo(text: str) -> str:
    """
    Addresses without a scheme, without what stands before the last ``@`` where that may hold a password.

    To a text with a URL nothing is done: that is for ``redact_text``.
    """
    before, _, address = text.rpartition("@")
    return f"{MASK}@{address}" if ":" in before and "://" not in text else text


def redact_text(text: str) -> str:
    """
    The text without what is secret in its addresses, and with long runs of base64, which may be an image, by length.

    That is userinfo, query and fragment of a URL; without a scheme, what is asked after a ``?``, and values that have
    the name of a secret. Where any of it is seen once the escapes of JSON or of addresses are undone, all are undone.
    """
    # Values first: one may hold the @ that would end a name and a password.
    text = _without_values(_without_escapes(text))
    if "://" in text:
        text = _SPACED_PASSWORD.sub(f"://{MASK}@", text)
        text = _ADDRESS.sub(lambda found: f"://{_bare(found[1], found[2])}", text)
    text = _QUERY.sub(f"?{MASK}", text)
    text = _ENCODED_BYTES.sub(lambda run: f"<{len(run[0])} encoded characters>", text)
    if len(text) > MAX_TEXT_CHARS:
        half = MAX_TEXT_CHARS // 2
        text = f"{text[:half]} <{len(text) - 2 * half} characters> {text[-half:]}"
    return text


def one_line(text: str, *, keep_newlines: bool = False) -> str:
    """
    The text with what is invisible in it escaped, so that no value can forge a line of the log or steer a terminal.

    That is control characters, and those which change how the text around them is shown, as in which direction.
    """
    control = _CONTROL_BUT_NEWLINE if keep_newlines else _CONTROL
    return control.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _bare(address: str, query: str) -> str:
    """
    What of an address may be said, from behind its scheme; ``address`` ends where ``query``, if any, begins.
    """
    authority, _, path = address.partition("/")
    is_host = _HOST.fullmatch(authority) is not None
    if "@" in query and not is_host:
        return MASK  # a password may hold a question mark, and then nothing tells where it ends
    if "@" in path and not (is_host and "." in authority):
        return f"{MASK}@{address.rpartition('@')[2]}"
    host = authority.rpartition("@")[2]
    if _NO_HOST.match(host):
        return MASK
    return address[len(authority) - len(host) :]


def _split(address: str) -> tuple[str, str, str]:
    """
    An address before its query or fragment, the sign that begins it, and what follows.
    """
    bare, *rest = re.split("([?#])", address, maxsplit=1)
    return (bare, rest[0], rest[1]) if rest else (bare, "", "")


def _without_values(text: str) -> str:
    return _PARAMETER.sub(rf"\1={MASK}", text)


def _without_escapes(text: str) -> str:
    """
    The text with the escapes of JSON and of addresses undone where something secret is then seen; else as it was.
    """
    bare = _undone(text, _ESCAPED) if "\\" in text else text
    if not (_addresses(bare) or _ENCODED_BYTES.search(bare)):
        bare = text
    plain = _undone(text, _ESCAPED, _PERCENT) if "%" in text or "\\" in text else bare
    return plain if _addresses(plain) > _addresses(bare) else bare


def _undone(text: str, *escapes: re.Pattern[str]) -> str:
    for _ in range(_MOST_NESTED):
        before = text
        for escape in escapes:
            text = escape.sub(_sign, text)
        if text == before:
            break
    return text


def _sign(escape: re.Match[str]) -> str:
    *literal, code = escape.groups()
    return chr(int(code, 16)) if code else "".join(literal)


def _addresses(text: str) -> int:
    """
    How much in a text looks like an address or a part of one.
    """
    asked = sum(1 for pattern in (_QUERY, _PARAMETER) for _ in pattern.finditer(text))
    return text.count("://") + asked
