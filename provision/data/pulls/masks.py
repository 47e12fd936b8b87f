"""Masks: what takes the place of a personal value. Pure; equal values get equal masks, under one key.

A mask keeps a value's type. Text gets words that mean nothing; a number gets another one of as many digits. It is an HMAC
or a keyed permutation, so nobody without the key can compute it, or test a guess.
"""

from __future__ import annotations

import calendar
import datetime
import hashlib
import hmac
import re
from typing import Any, Literal, get_args

Kind = Literal["email", "name", "phone", "number", "text", "date", "id", "remove", "keep"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"
_ROUNDS = 8
_INT64 = 2**63
_TEXT_LENGTHS = (12, 400)
_DAY_MS = 24 * 60 * 60 * 1000


class Masker:
    """Masks values under one key, which is secret."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def mask(self, value: Any, kind: Kind) -> Any:
        """What takes the place of a value that is not a document or an array. True, false and null stay."""
        if kind == "keep" or value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._string(value, kind)
        return self._typed(value)

    def _string(self, value: str, kind: Kind) -> str:
        if not value:
            return value
        if kind in ("phone", "number"):
            if any(each.isalpha() for each in value) or not any(each.isdecimal() for each in value):
                return self._text(value)
            return self._digits(value)
        if kind == "email":
            return f"{self._word(value, 'email', 7).lower()}@example.com"
        if kind == "name":
            words = [self._word(value, "name", 5), self._word(value, "name two", 4)]
            return " ".join(words) if " " in value.strip() else words[0]
        if kind == "date":
            return self._date_text(value)
        if kind == "id":
            return self._digest("id", value.encode()).hex()[:24]
        return self._text(value)

    def _typed(self, value: Any) -> Any:
        from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
        from bson.datetime_ms import DatetimeMS

        if isinstance(value, Int64):
            return Int64(self._integer(value))
        if isinstance(value, int):
            return self._integer(value)
        if isinstance(value, float):
            return self._float(value)
        if isinstance(value, Decimal128):
            mantissa, e, exponent = str(value).partition("E")
            return Decimal128(self._digits(mantissa) + e + exponent) if value.to_decimal().is_finite() else value
        if isinstance(value, datetime.datetime):
            return self._date(value)
        if isinstance(value, DatetimeMS):
            return DatetimeMS(self._integer(int(value)) % (_DAY_MS * 365 * 100))
        if isinstance(value, ObjectId):
            return ObjectId(self._digest("id", value.binary)[:12])
        if isinstance(value, Timestamp):
            return Timestamp(self._permuted(value.time, 2**32, b"time"), value.inc)
        if isinstance(value, Code):
            return Code(self._text(str(value)))
        if isinstance(value, Regex):
            return Regex(self._text(str(value.pattern)), value.flags)
        if isinstance(value, bytes):  # Binary is one
            made = self._bytes(bytes(value))
            return Binary(made, value.subtype) if isinstance(value, Binary) else made
        if isinstance(value, MinKey | MaxKey):
            return value
        raise TypeError(f"no mask for {type(value).__name__}")

    def _bytes(self, value: bytes) -> bytes:
        length = max(len(value), 16)
        made, block = b"", 0
        while len(made) < length:
            made += self._digest(f"bytes {block}", value)
            block += 1
        return made[:length]

    def _integer(self, value: int) -> int:
        """A number of as many digits; two numbers never become one."""
        size = abs(int(value))
        digits = len(str(size))
        least = 10 ** (digits - 1) if digits > 1 else 0
        made = least + self._permuted(size - least, min(10**digits, _INT64) - least, b"integer")
        return -made if value < 0 else made

    def _float(self, value: float) -> float:
        if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 — NaN
            return value
        if value.is_integer() and abs(value) < 10**15:
            return float(self._integer(int(value)))
        return float(self._digits_of_float(value))

    def _digits_of_float(self, value: float) -> str:
        mantissa, e, exponent = repr(value).partition("e")
        return self._digits(mantissa) + e + exponent

    def _digits(self, text: str) -> str:
        """The text with other digits at their places; what stands between them stays."""
        plain = "".join(str(int(each)) if each.isdecimal() else each for each in text)
        digits = re.sub(r"[^0-9]", "", plain)
        made = iter(f"{self._permuted(int(digits), 10 ** len(digits), b'digits'):0{len(digits)}d}")
        return re.sub(r"[0-9]", lambda _: next(made), plain)

    def _date(self, value: datetime.datetime) -> datetime.datetime:
        """Another moment of the same year."""
        begin = datetime.datetime(value.year, 1, 1, tzinfo=value.tzinfo)
        within = (value - begin) // datetime.timedelta(milliseconds=1)
        made = self._permuted(within, _days(value.year) * _DAY_MS, b"date")
        return begin + datetime.timedelta(milliseconds=made)

    def _date_text(self, value: str) -> str:
        try:
            found = datetime.datetime.fromisoformat(value)
        except ValueError:
            return self._text(value)
        if len(value) > len("2024-01-01"):
            return self._date(found).isoformat()
        begin = found.date().replace(month=1, day=1)
        made = self._permuted((found.date() - begin).days, _days(found.year), b"day")
        return (begin + datetime.timedelta(days=made)).isoformat()

    def _text(self, value: str) -> str:
        """Words that mean nothing, about as long as the text."""
        least, most = _TEXT_LENGTHS
        length = min(max(len(value), least), most)
        words, size, number = [], 0, 0
        while size < length:
            words.append(self._word(value, f"text {number}", 2 + number % 3).lower())
            size, number = size + len(words[-1]) + 1, number + 1
        if number < 3:
            words.append(self._word(value, "text more", 3).lower())
        return " ".join(words)

    def _word(self, value: str, purpose: str, syllables: int) -> str:
        number = int.from_bytes(self._digest(purpose, value.encode("utf-8", "surrogatepass")), "big")
        made = ""
        for _ in range(syllables):
            number, consonant = divmod(number, len(_CONSONANTS))
            number, vowel = divmod(number, len(_VOWELS))
            made += _CONSONANTS[consonant] + _VOWELS[vowel]
        return made.capitalize()

    def _permuted(self, value: int, size: int, purpose: bytes) -> int:
        """Another number below `size`; a permutation without a fixed point, where there is more than one number."""
        inner = self._feistel(value, size, purpose)
        return self._feistel((inner + 1) % size, size, purpose, backwards=True)

    def _feistel(self, value: int, size: int, purpose: bytes, backwards: bool = False) -> int:
        """A keyed permutation of the numbers below `size`: a Feistel network, walked until it is back below."""
        half = max(1, ((size - 1).bit_length() + 1) // 2)
        low = (1 << half) - 1
        rounds = range(_ROUNDS - 1, -1, -1) if backwards else range(_ROUNDS)
        while True:
            left, right = value >> half, value & low
            for number in rounds:
                if backwards:
                    left, right = right ^ self._round(left, number, size, purpose, low), left
                else:
                    left, right = right, left ^ self._round(right, number, size, purpose, low)
            value = left << half | right
            if value < size:
                return value

    def _round(self, value: int, number: int, size: int, purpose: bytes, low: int) -> int:
        digest = self._digest("round", b"%b %d %d %d" % (purpose, number, size, value))
        return int.from_bytes(digest, "big") & low

    def _digest(self, purpose: str, value: bytes) -> bytes:
        return hmac.digest(self._key, purpose.encode() + b"\0" + value, hashlib.sha256)


def _days(year: int) -> int:
    return 366 if calendar.isleap(year) else 365
