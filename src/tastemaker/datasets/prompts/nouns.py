"""Nouns in English captions: their plurals, how many are meant, and where a name ends.

Word lists in place of a grammar, each meant to err on one side: a doubtful caption counts as one of
several, or as one of something else, so that what is kept can be trusted.
"""

from __future__ import annotations

import re

_PLURALS = {
    "child": "children",
    "foot": "feet",
    "goose": "geese",
    "mouse": "mice",
    "ox": "oxen",
    "person": "people",
    "tooth": "teeth",
}

# Words before a name that make it the name of something else: a hot dog, a teddy bear.
_OTHERS = ("hot", "corn", "chili", "prairie", "teddy", "gummy", "computer", "rubber", "gingerbread")

_SEVERAL = re.compile(
    r"\b(?:[2-9]|\d\d+|two|three|four|five|six|seven|eight|nine|ten|dozen|both|few|many|multiple"
    r"|several|some|various|these|those|lots? of|(?:bunch|collection|couple|crowd|flock|gaggle"
    r"|group|herd|litter|number|pack|row|school|team)s? of) (?:[\w-]+ ){0,2}$",
    re.IGNORECASE,
)
# Names that are their own plural need a word that says there is one.
_ALIKE = frozenset({"bison", "deer", "fish", "moose", "sheep"})
_ONE = re.compile(r"\b(?:a|an|another|one|that|this) (?:[\w-]+ )?$", re.IGNORECASE)
# "A pair of" is one of what has no singular, glasses or boots, and two of anything else.
_PAIR = re.compile(r"\bpairs? of (?:[\w-]+ ){0,2}$", re.IGNORECASE)

# What may follow a name that ends there. After any other word it may go on: a dog bowl.
_ENDS = re.compile(
    r"""
    $ | [^\w'’]*[^\w\s'’] | [ ]                      # the end, a comma, or one of these words:
    (?: about | above | across | after | against | along | alongside | amid | among | around | as
      | at | before | behind | below | beneath | beside | between | by | during | for | from | in
      | inside | into | near | nearby | next | of | off | on | onto | out | outside | over | than
      | through | to | towards? | under | underneath | up | down | upon | with | within | without
      | and | but | or | because | if | so | that | then | where | which | while | who | whose
      | is | are | was | were | be | can | does | had | has | have | may | will
      | all | alone | also | asleep | awake | away | indoors | outdoors | not | there | together
      | catches | chases | crosses | drinks | eats | enjoys | gets | gives | goes | hangs | holds
      | jumps | leans | leaps | licks | lies | looks | lays | plays | poses | rests | rides | runs
      | sits | sleeps | sniffs | stands | stares | swims | takes | tries | waits | walks | watches
      | wears | held | kept | laid | made | sat | seen | shown | stood | tied | worn
      | (?! breed | clothing | drawing | painting | racing | training ) \w{2,} (?: ing | \wed )
    ) (?! [\w'’-] )
    """,
    re.VERBOSE | re.IGNORECASE,
)


def plurals(name: str) -> set[str]:
    """Return every plural that a name might have; what is no word is in no caption either.

    Args:
        name: In the singular and in lower case, of one word or several.

    Returns:
        Guesses, the true one among them.

    Example:
        >>> sorted(plurals("puppy"))
        ['puppies', 'puppyes', 'puppys']
    """
    *first, last = name.split()
    endings = {f"{last}s", f"{last}es", _PLURALS.get(last, f"{last}s")}
    for singular, plural in (("y", "ies"), ("f", "ves"), ("fe", "ves"), ("man", "men")):
        if last.endswith(singular):
            endings.add(last.removesuffix(singular) + plural)
    return {" ".join([*first, ending]) for ending in endings}


def naming(names: set[str]) -> re.Pattern[str]:
    """Make a pattern that finds names as whole words, in either case, the longest first.

    Args:
        names: In lower case.

    Returns:
        A pattern that passes over a hot dog and a dog-shaped cake where it looks for a dog.

    Example:
        >>> naming({"dog"}).findall("A Dog, a hot dog and a dog-shaped cake")
        ['Dog']
    """
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    others = "".join(rf"(?<!\b{word} )" for word in _OTHERS)
    any_of = "|".join(map(re.escape, longest_first))
    return re.compile(rf"(?<![\w-]){others}(?:{any_of})(?![\w-])", re.IGNORECASE)


def counts_several(name: str, before: str) -> bool:
    """Tell whether the words before a name say that it stands for several.

    Args:
        name: In the singular and in lower case.
        before: The sentence up to the name, with single spaces.

    Returns:
        True for "two white" or "a herd of" before "sheep", and where nothing says that it is one.

    Example:
        >>> counts_several("sheep", "two white "), counts_several("glasses", "a pair of ")
        (True, False)
    """
    if name.split()[-1] in _ALIKE and not _ONE.search(before):
        return True
    paired = not name.endswith("s") and _PAIR.search(before)
    return bool(paired or _SEVERAL.search(before))


def ends_there(rest: str) -> bool:
    """Tell whether a name ends before the rest of its sentence, and does not go on: a dog bowl.

    Args:
        rest: The sentence after the name, with single spaces.

    Returns:
        False where the next word may be a part of the name, or makes it a possessive.

    Example:
        >>> ends_there(" sleeping on a mat"), ends_there(" house"), ends_there("'s tail")
        (True, False, False)
    """
    return _ENDS.match(rest) is not None
