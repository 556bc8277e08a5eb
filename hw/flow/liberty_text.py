# SPDX-License-Identifier: BSD-2-Clause
"""The syntax of Liberty files: text into nested groups of attributes, each with its line.

Groups are not interpreted here, see `hw.flow.liberty`. The syntax is that of the files that
foundries ship, which is wider than the Liberty manual: a newline ends an attribute as a semicolon
does; a backslash before a newline continues a line, in strings too; comments are ``/* */`` and
``//``; a value may be an expression without quotes.
"""

import gc
import gzip
import hashlib
import re
import zlib
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from ..tools.errors import ToolError


class Source:
    """A file that was read.

    Parameters
    ----------
    path : Path
    text : str
    sha256 : str
        Digest of the file as it is on disk.
    """

    def __init__(self, path: Path, text: str, sha256: str) -> None:
        self.path, self.text, self.sha256 = path, text, sha256
        # Where each statement begins; None while only `_STATEMENT` knows.
        self.offsets: list[int] | None = None

    def line(self, statement: int) -> int:
        """Number of the line, from 1, on which a statement of the file begins."""
        if self.offsets is None:
            self.offsets = [match.start("name") if match["name"] else match.start()
                            for match in _STATEMENT.finditer(self.text)]
        return 1 + self.text.count("\n", 0, (self.offsets or [0])[statement])


class Place(NamedTuple):
    """A statement of a file, by its number."""

    source: Source
    statement: int

    def __str__(self) -> str:
        return f"{self.source.path.name}, line {self.source.line(self.statement)}"


class LibertyError(ToolError):
    """A Liberty file cannot be used; the text names file, line and attribute.

    Parameters
    ----------
    place : Place
    text : str
        One line.
    """

    def __init__(self, place: Place, text: str) -> None:
        super().__init__(f"Library {place}: {text}")


class Unsupported(LibertyError):
    """A file has something that it may have and that is not supported.

    It matters only if it is in a cell that is needed.
    """


class Attribute:
    """A simple or complex attribute.

    Attributes
    ----------
    name : str
    place : Place
    """

    __slots__ = "name", "place", "_raw", "_simple"

    def __init__(self, name: str, raw: str, simple: bool, place: Place) -> None:
        self.name, self.place, self._raw, self._simple = name, place, raw, simple

    # Most attributes are never looked at.
    @property
    def values(self) -> tuple[str, ...]:
        """One value of a simple attribute, any number of a complex one; without quotes."""
        return (_plain(self._raw),) if self._simple else _words(self._raw)


@dataclass(eq=False)
class Group:
    """One Liberty group, not interpreted.

    Attributes
    ----------
    kind : str
        The word before the parenthesis, such as ``"pin"``.
    arguments : tuple of str
        The words inside the parenthesis.
    place : Place
    attributes : dict of str to list of Attribute
        All attributes by name, in the order of the file.
    groups : list of Group
    """

    kind: str
    arguments: tuple[str, ...]
    place: Place
    attributes: dict[str, list[Attribute]] = field(default_factory=dict)
    groups: list["Group"] = field(default_factory=list)

    def all(self, kind: str) -> list["Group"]:
        """Every group of this kind directly inside."""
        return [group for group in self.groups if group.kind == kind]

    def only(self, kind: str) -> "Group | None":
        """The group of this kind directly inside, None without one; LibertyError if several."""
        found = self.all(kind)
        if len(found) > 1:
            raise LibertyError(found[1].place, f"{kind} stands twice in {self}")
        return found[0] if found else None

    def find(self, name: str) -> Attribute | None:
        """An attribute that stands once; LibertyError if it stands again with other values."""
        found = self.attributes.get(name)
        if not found:
            return None
        for other in found[1:]:
            if other.values != found[0].values:
                raise LibertyError(other.place, f"{name} stands again in {self}, with another "
                                                "value")
        return found[0]

    def get(self, name: str, default: str = "") -> str:
        """First value of an attribute, or the default."""
        found = self.find(name)
        return found.values[0] if found and found.values else default

    def number(self, name: str, default: float | None = None) -> float:
        """Value of an attribute as a number, or the default if there is no such attribute.

        Raises LibertyError if the value is no number, or if there is neither value nor default.
        """
        found = self.find(name)
        if found is None:
            if default is None:
                raise LibertyError(self.place, f"{self} has no {name}")
            return default
        if len(found.values) != 1 or not _NUMBER.fullmatch(found.values[0].strip()):
            raise LibertyError(found.place, f"{name} must be a number, not "
                                            f"{', '.join(found.values)!r}")
        return float(found.values[0])

    def flag(self, name: str) -> bool:
        """Whether an attribute is true; LibertyError if it is neither true nor false."""
        found = self.find(name)
        if found is None:
            return False
        value = found.values[0].strip().lower() if found.values else ""
        if value not in _FLAGS:
            raise LibertyError(found.place, f"{name} must be true or false, not {value!r}")
        return _FLAGS[value]

    def __str__(self) -> str:
        return f"{self.kind} ({', '.join(self.arguments)})"


_FLAGS = {"true": True, "false": False, "1": True, "0": False}
_DIGITS = re.compile(r"[\d\s.,eE+-]*", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def numbers(text: str, place: Place, name: str) -> list[float]:
    """Numbers that commas or blanks separate, as in ``values``.

    Raises
    ------
    LibertyError
        If one is not a number.
    """
    words = text.replace(",", " ").split()
    if _DIGITS.fullmatch(text):
        try:
            return [*map(float, words)]
        except ValueError:
            pass
    # Where each word is a number, something else than a comma or a blank separates them.
    wrong = next((word for word in words if not _NUMBER.fullmatch(word)), text)
    raise LibertyError(place, f"{name} must be numbers, not {wrong!r}")


def read(path: Path) -> tuple[Group, list[Source]]:
    """Reads a Liberty file and the files that it includes.

    Parameters
    ----------
    path : Path
        May be compressed by gzip, whatever its name.

    Returns
    -------
    library : Group
    sources : list of Source
        The file, then the included ones.

    Raises
    ------
    LibertyError
        If a file is not in the Liberty format.
    OSError
        If the file cannot be read.
    """
    source = load(path)
    reader = _Reader(source)
    root = Group("", (), Place(source, 0))
    # A hundred thousand objects that all stay: looking for garbage among them takes as long again.
    collects = gc.isenabled()
    gc.disable()
    try:
        reader.read(source, root, ())
    finally:
        if collects:
            gc.enable()
    libraries = [group for group in root.groups if group.kind == "library"]
    if len(root.groups) != 1 or not libraries or root.attributes:
        raise LibertyError(Place(source, 0), "not in the Liberty format: "
                                             "a file holds one library (NAME) { ... }")
    return libraries[0], reader.sources


def load(path: Path) -> Source:
    """Reads a file's text: unpacks gzip, drops a byte order mark, takes any 8-bit encoding."""
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise LibertyError(Place(Source(path, "", digest), 0),
                               f"its gzip data is damaged: {error}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if "\n" not in text:
        text = text.replace("\r", "\n")
    return Source(path, text, digest)


_STRING = r'"(?:[^"\\]|\\.)*"'
# One token of what stands outside strings, for the values that are expressions.
_TOKEN = re.compile(rf'[^\S\n]+|\n|{_STRING}|[{{}}();:,"]|[^\s{{}}();:,"]+', re.DOTALL)


def _statement(between, other):
    """The pattern of a statement, up to and with the mark that ends it.

    A complex attribute may end with nothing. What is none of these is `other`. The second
    argument has the characters besides Liberty's own that end a word.
    """
    word = rf'[^\s{{}}();:,"{other}]++'
    return re.compile(rf"""
        {between} (?:
            (?P<name> {word} ) [ \t\r]*+ (?:
                : [ \t\r]*+ (?P<value> {_STRING} | {word} (?<! [!&|^*+-] ) ) [ \t\r]*+
                  (?= [;}}] | \n (?! \s*+ [&|^*+] ) ) ;?
              | \( (?P<arguments> (?: [^()"{other}]++ | {_STRING} )*+ ) \) \s*+ (?P<mark> [{{;]? ) )
          | (?P<end> \}} )
          | \Z
          | (?P<other> . )
        )""", re.VERBOSE | re.DOTALL)


# Almost every statement of most files is a match of the first. The second is for a text without
# comments.
_STATEMENT = _statement(r"(?: [\s;]++ | /\* .*? \*/ | //[^\n]*+ )*+", "/")
_BLANKED_STATEMENT = _statement(r"[\s;]*+", "")
_WORD = re.compile(rf'{_STRING}|[^\s,"\\]+', re.DOTALL)
_OPERATORS = "!&|^*+-/'("


def _words(text):
    return tuple(map(_plain, _WORD.findall(text)))


class _Reader:
    def __init__(self, source):
        self.sources = [source]

    def read(self, source, root, above):
        """Reads a source's statements into a group; `above` are the sources that include it."""
        # As fast as it goes for the files that most tools write. Line numbers come when needed.
        statements = _STATEMENT.findall(source.text)
        if any(statement[5] for statement in statements):
            statements = self._slowly(source)
        stack = [root]
        top, attributes = root, root.attributes
        for number, (name, value, arguments, mark, end, _) in enumerate(statements):
            if end:
                if len(stack) == 1:
                    raise LibertyError(Place(source, number),
                                       "not in the Liberty format: a } too many")
                stack.pop()
                top = stack[-1]
                attributes = top.attributes
            elif value:
                attributes.setdefault(name, []).append(
                    Attribute(name, value, True, Place(source, number)))
            elif mark == "{":
                group = Group(name, _words(arguments), Place(source, number))
                top.groups.append(group)
                stack.append(group)
                top, attributes = group, group.attributes
            elif name == "include_file":
                self._include(_words(arguments), Place(source, number), top, (*above, source))
            elif name:
                attributes.setdefault(name, []).append(
                    Attribute(name, arguments, False, Place(source, number)))
        if len(stack) > 1:
            raise LibertyError(top.place, f"not in the Liberty format, or cut off: {top} has no }}")

    def _include(self, words, place, group, above):
        if len(words) != 1:
            raise LibertyError(place, "include_file must name one file")
        path = place.source.path.parent / words[0]
        if any(path.resolve() == source.path.resolve() for source in above):
            raise LibertyError(place, f"include_file {words[0]} includes itself")
        try:
            source = load(path)
        except OSError as error:
            raise LibertyError(place, f"include_file {words[0]}: {error.strerror}") from None
        self.sources.append(source)
        self.read(source, group, above)

    def _slowly(self, source):
        """Yields the statements of a file that has comments within them or expressions."""
        text = _blanked(source)
        source.offsets = []
        at = 0
        while match := _BLANKED_STATEMENT.match(text, at):
            at, other = match.end(), match["other"]
            source.offsets.append(match.start("other") if other else
                                  match.start("name") if match["name"] else match.start())
            if other:
                name, value, at = self._expression(source, text, match.start("other"))
                yield name, value, "", "", "", ""
            else:
                yield match.groups("")
            if at == len(text):
                return

    def _expression(self, source, text, at):
        """Reads an attribute whose value is several words.

        It goes on behind a newline if it is empty so far, a parenthesis is open, or an operator
        stands at the end of the line or at the beginning of the next.

        Returns
        -------
        name, value : str
        at : int
            Where it ends.
        """
        place = Place(source, len(source.offsets) - 1)
        head = _HEAD.match(text, at)
        if head is None:
            word = text[at:at + 20].split()[0]
            raise LibertyError(place, f"not in the Liberty format, at {word!r}")
        words, depth, at = [], 0, head.end()
        while at < len(text):
            token = _TOKEN.match(text, at)
            word = token[0]
            if word == "\n":
                follows = text[at:].lstrip()[:1]
                if words and not depth and words[-1][-1] not in "!&|^*+-/" and not (
                        follows and follows in "&|^*+/"):
                    break
            elif word in ("{", ":", ";", "}") or word == ")" and not depth:
                break
            elif not word.isspace():
                depth += (word == "(") - (word == ")")
                words.append(word)
            at = token.end()
        if not words or depth or text[at:at + 1] in ("{", ":", ")") or not _joined(words):
            raise LibertyError(place, f"not in the Liberty format: {head[1]} must have one value "
                                      "that ends with ; or with the line")
        value = words[0] if len(words) == 1 else " ".join(map(_plain, words))
        return head[1], value, at


_HEAD = re.compile(r'([^\s{}();:,"]+)\s*:')


def _joined(words):
    """Whether operators or parentheses join all words of an expression."""
    return all(before[-1] in _OPERATORS or word[0] in _OPERATORS + ")"
               for before, word in pairwise(words))


def _plain(word):
    """A word without quotes."""
    if word[0] != '"':
        return word
    word = word[1:-1]
    if "\\" in word:
        word = re.sub(r"\\[ \t\r]*\n", "  ", word)
        word = re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL)
    return word


_SKIPPED = re.compile(rf'{_STRING}|/\*.*?(?:\*/|\Z)|//[^\n]*|\\[ \t\r]*\n|"', re.DOTALL)


def _blanked(source):
    """The text with blanks for comments and for continued lines, outside strings.

    Every character keeps its place, and so every line its number.
    """
    def fail(at, text):
        source.offsets = [at]
        raise LibertyError(Place(source, 0), f"not in the Liberty format: {text}")

    def blank(match):
        word = match[0]
        if word[0] == '"':
            return word if len(word) > 1 else fail(match.start(), "a string without an end")
        if word[:2] == "/*" and (len(word) < 4 or word[-2:] != "*/"):
            fail(match.start(), "a comment without an end")
        return " " * len(word) if word[0] == "\\" else re.sub(r"[^\n]", " ", word)

    return _SKIPPED.sub(blank, source.text)
