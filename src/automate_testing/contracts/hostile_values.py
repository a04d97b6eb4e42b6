"""
The contract of a text that goes into a protocol, as tests that its author inherits.

::

    class TestNamesOfFiles(HostileValuesContract):
        places = ("name",)

        def carry(self, place, value):
            self.client.write(value, b"x")
            (found,) = self.server.names()
            return found, None
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from pydantic import ValidationError

from automate_kernel.base.errors import AutomateError, ErrorCodes

__all__ = ["HOSTILE_VALUES", "HostileValuesContract"]

HOSTILE_VALUES: Mapping[str, str] = {
    # Encoded words of mail (RFC 2047), which some libraries decode while they write.
    "encoded_word": "=?utf-8?q?a=0D=0AX-Evil=3A_1=0D=0A=0D=0Abody?=",
    "encoded_word_base64": "=?utf-8?b?YQ0KWC1FdmlsOiAxDQoNCmJvZHk=?=",
    "encoded_word_amid": "Re: =?iso-8859-1?Q?=E4=0AX-Evil=3A_1?= b",
    "encoded_words": "=?utf-8?q?a=0D?= =?utf-8?q?=0AX-Evil=3A_1?=",
    "encoded_parameter": "utf-8''a%0D%0AX-Evil%3A%201",
    # Ends of lines, for one program or another.
    "cr": "a\rX-Evil: 1",
    "lf": "a\nX-Evil: 1",
    "crlf": "a\r\nX-Evil: 1",
    "crlf_body": "a\r\n\r\nbody",
    "lf_at_the_end": "a\n",
    "folded": "a\r\n b",
    "vertical_tab": "a\x0bb",
    "form_feed": "a\x0cb",
    "file_separator": "a\x1cb",
    "next_line": "a\x85X-Evil: 1",
    "line_separator": "a\u2028X-Evil: 1",
    "paragraph_separator": "a\u2029X-Evil: 1",
    # Characters whose lowest byte is CR or LF, for who cuts the others off.
    "low_byte_crlf": "a\u560d\u560aX-Evil: 1",
    # Controls.
    "nul": "a\0b",
    "nul_at_the_end": "a.txt\0.png",
    "backspace": "a\x08b",
    "escape": "\x1b[2J\x1b]0;title\x07",
    "delete": "a\x7fb",
    "c1": "a\x9b31mb",
    # Blanks.
    "empty": "",
    "blank": " ",
    "leading_blank": " a",
    "trailing_blank": "a ",
    "blanks": "a  b",
    "tab": "a\tb",
    "leading_tab": "\ta",
    "no_break_space": "a\u00a0b",
    "leading_no_break_space": "\u00a0a",
    "trailing_no_break_space": "a\u00a0",
    "narrow_space": "a\u202fb",
    "ideographic_space": "a\u3000b",
    "zero_width_space": "a\u200bb",
    "byte_order_mark": "\ufeffa",
    "soft_hyphen": "a\u00adb",
    # Halves of surrogate pairs, which no encoding has.
    "high_surrogate": "a\ud800b",
    "low_surrogate": "a\udc80b",
    "swapped_surrogates": "\udc00\ud800",
    # Direction, case, composition.
    "right_to_left": "a\u202efdp.exe",
    "isolate": "\u2066a\u2069\u2067b",
    "right_to_left_mark": "\u200fa",
    "latin": "Gr\u00f6\u00dfe",
    "composed": "e\u0301",
    "dotted_capital": "\u0130",
    "kelvin": "\u212a",
    "ligature": "\ufb01le",
    "full_width": "\uff0e\uff0e\uff0fa\uff1d\uff07",
    "astral": "a\U0001f600b",
    "private": "\ue000",
    "not_a_character": "a\uffffb",
    "tag": "a\U000e0041b",
    # Marks of the languages that texts are put into.
    "quote": 'a"b',
    "apostrophe": "a'b",
    "backslash": "a\\b",
    "backslash_at_the_end": "a\\",
    "escaped_quote": 'a\\"; b="c',
    "backtick": "a`b",
    "semicolon": "a; b=c",
    "comma": "a, b",
    "colon": "a: b",
    "angle": "<a@b.example>",
    "parentheses": "(a))",
    "at": "a@evil.example",
    "percent": "%",
    "percent_crlf": "a%0d%0aX-Evil:%201",
    "percent_nul": "a%00b",
    "percent_twice": "%250d%252e%252e%252f",
    "query": "a?b=c&d=e#f",
    "plus": "a+b",
    "json": '"}],"x":[{"',
    "html": "<script>a</script>&amp;",
    "markup": "<!channel> <@U1> *a* [b](http://evil.example)",
    # Paths and addresses.
    "parent": "../../etc/passwd",
    "parent_encoded": "%2e%2e%2fa",
    "parent_backslash": "..\\..\\a",
    "parent_parameter": "..;/a",
    "dot": ".",
    "dots": "..",
    "slash": "a/b",
    "slash_at_the_end": "a/",
    "two_slashes": "a//b",
    "absolute": "/etc/passwd",
    "drive": "C:\\a",
    "network": "//evil.example/a",
    "url": "http://evil.example/a",
    "device": "nul",
    # Statements.
    "sql_apostrophe": "'; DROP TABLE a; --",
    "sql_comment": "*/ DROP TABLE a; /*",
    "sql_line_comment": "a --\r; DROP TABLE a",
    "sql_hash": "a # b",
    "sql_dollar": "$$; DROP TABLE a; $a$",
    "sql_parameters": "%s %(a)s :a ? ?? {a}",
    "sql_pattern": "a%b_c\\_d",
    "shell": "$(id); `id` | id & ${IFS} > a",
    "option": "--help",
    "dash": "-",
    "wildcards": "*?[a-z]{a,b}",
    "home": "~root/$HOME",
    "directory_filter": "*)(uid=*))(|(uid=*",
    "operators": 'a OR b:c -d AND "e',
    # Templates and formulas.
    "template": "{{ 7 * 7 }}{% raw %}",
    "secret": "$secret:A",
    "environment": "$env:HOME",
    "format": "%s %n {0} {a.b}",
    "formula": '=HYPERLINK("http://evil.example")',
    "formula_plus": "+1+1",
    "formula_minus": "-1+1|a!A1",
    "formula_at": "@SUM(1)",
    "formula_after_blank": " =1+1",
    "formula_after_mark": "\u200e\u200b=1+1",
    "formula_after_nul": "\0=1+1",
    "formula_full_width": "\uff1d1+1",
    "formula_after_quote": "'=1+1",
    # YAML.
    "yaml_tag": "!!python/name:os.system",
    "yaml_alias": "*a",
    "yaml_anchor": "&a b",
    "yaml_merge": "<<: *a",
    "yaml_document": "---\na: b",
    "yaml_end": "...",
    "yaml_block": "|\n a",
    "yaml_comment": "a #b",
    "yaml_list": "- a",
    "yaml_null": "null",
    "yaml_tilde": "~",
    "yaml_word": "no",
    "yaml_number": "1_000",
    "yaml_octal": "0o17",
    "yaml_exponent": "1e3",
    "yaml_sexagesimal": "12:30:45",
    "yaml_date": "2026-01-01",
    # Sizes.
    "long": "a" * 100_000,
    "long_wide": "\U0001f600" * 20_000,
    "long_words": "a " * 30_000 + "a",
    "long_line_of_mail": "a" * 1_100,
    "many_encoded_words": "=?utf-8?q?a?= " * 500,
    "long_name": "\u00e4" * 200,
}
"""Texts that were something else than text for some program, by names of their own."""

_HARMLESS = "Plain4711"
_SHOWN = 25
_MOST_MESSAGE = 4_000
_LONGEST_PIECE = 300


class HostileValuesContract:
    """
    Puts each hostile value in each place where a plugin writes a text into a protocol.

    A value is refused, or it arrives whole and changes nothing else. A subclass names its *places*,
    and `carry` sends one value. A refusal is an `AutomateError` with one of the codes in
    *refusals*, which isn't tried again and has a text of printable characters. A pydantic model may
    raise its ``ValidationError``.

    `accepts` names values that must not be refused, by place. Mixtures of the values come too, as
    many as *mixtures*; the same each time, and others with another *seed*.
    """

    places: ClassVar[Collection[str]]
    refusals: ClassVar[Collection[ErrorCodes]] = (ErrorCodes.INVALID_ARGUMENT,)
    accepts: ClassVar[Mapping[str, Collection[str]]] = {}
    mixtures: ClassVar[int] = 60
    seed: ClassVar[int] = 0
    harmless: ClassVar[str] = _HARMLESS

    def carry(self, place: str, value: str) -> tuple[Any, Any]:
        """
        Send *value* in *place*; return what the other program read there, and all else it read.

        Read it with the other program or a parser of its kind, never with the code under test.
        """
        raise NotImplementedError("override `carry`")

    def same(self, place: str, value: str, arrived: Any) -> bool:
        """Return True if *arrived* is the *value* that was sent: by default the same text."""
        return bool(arrived == value)

    def test_a_harmless_value_arrives(self) -> None:
        """Else the refusals of the other tests would say nothing."""
        for place in self.places:
            arrived, _ = self.carry(place, self.harmless)
            assert self.same(place, self.harmless, arrived), f"{place}: arrived as {arrived!r}"

    def test_a_hostile_value_arrives_whole_or_is_refused(self) -> None:
        """It changes nothing beside itself."""
        self._try(HOSTILE_VALUES.items)

    def test_a_mixture_arrives_whole_or_is_refused(self) -> None:
        """Several together may do what each alone can't."""
        self._try(lambda: _mixtures(self.seed, self.mixtures))

    def _try(self, values: Callable[[], Iterable[tuple[str, str]]]) -> None:
        wrong = [
            f"{place}: {name}: {problem}"
            for place in self.places
            for name, problem in self._problems(place, values())
        ]
        shown = "\n".join(wrong[:_SHOWN])
        assert not wrong, f"{len(wrong)} values are neither refused nor carried whole:\n{shown}"

    def _problems(self, place: str, values: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        _, beside = self.carry(place, self.harmless)
        for name, value in values:
            try:
                arrived, found = self.carry(place, value)
            except ValidationError:
                problem = self._unlike_a_refusal(place, name)
            except AutomateError as error:
                problem = self._unlike_a_refusal(place, name, error)
            except Exception as error:  # what else it may be is what the test is about
                problem = f"raised {type(error).__name__}: {error!s:.200}"
            else:
                problem = None
                if found != beside:
                    problem = f"changed what is beside it: {found!r:.300} and not {beside!r:.300}"
                elif not self.same(place, value, arrived):
                    problem = f"arrived as {arrived!a:.200}"
            if problem:
                yield name, problem

    def _unlike_a_refusal(
        self, place: str, name: str, error: AutomateError | None = None
    ) -> str | None:
        if name in self.accepts.get(place, ()):
            return f"is refused: {error}"
        if error is None:
            return None
        if error.code not in self.refusals or error.retryable:
            return f"the refusal has the code {error.code}, retryable={error.retryable}: {error}"
        text = str(error)
        if len(text) > _MOST_MESSAGE or not text.replace("\n", " ").isprintable():
            return f"the text of the refusal is too long, or can't be printed: {text!a:.200}"
        return None


def _mixtures(seed: int, number: int) -> Iterator[tuple[str, str]]:
    chosen = random.Random(seed)
    pieces = [(name, each) for name, each in HOSTILE_VALUES.items() if len(each) <= _LONGEST_PIECE]
    for _ in range(number):
        mixed = chosen.sample(pieces, chosen.randint(2, 4))
        yield "+".join(name for name, _ in mixed), "".join(each for _, each in mixed)
