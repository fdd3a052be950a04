"""Templates: one slot, the right article, disjoint parts, and every file that they come from."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.config.choices import Choice
from tastemaker.config.loading import section
from tastemaker.config.sections import GenerateConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.templates import as_template, filled, parts
from tastemaker.datasets.prompts.captions import (
    BRACES,
    NOT_NAMED,
    REPEATED,
    TWICE,
    read_captions,
    rewritten,
)
from tastemaker.datasets.prompts.dreambooth import read_dreambooth
from tastemaker.datasets.prompts.sources import load_prompts
from tastemaker.datasets.prompts.template_sets import SETS, load_templates
from tastemaker.nano.captions import vocabulary

SHARED = Path(__file__).parents[4] / "shared" / "data" / "dreambooth" / "prompts_and_classes.txt"

PAPERS = """\
Classes

subject_name,class
owl,owl
vase2,blue vase

Prompts

Object Prompts

prompt_list = [
'a {0} {1} on a table'.format(unique_token, class_token),
"a {0} {1} on a painter's table".format(unique_token, class_token)
]

Live Subject Prompts

prompt_list = [
'a {0} {1} at sea'.format(unique_token, class_token),
'a {0} {1} on a table'.format(unique_token, class_token),
'a {0} {1} at sea'.format(unique_token, class_token)
]"""

sentences = st.text("abc ", max_size=4).map(lambda text: as_template(f"a {{}} {text}"))


def put(file: Path, content: str) -> str:
    file.write_text(content, encoding="utf-8")
    return str(file)


def prompts(**options: Any) -> list[str]:
    return load_prompts(Choice(name="templates", **options))


@pytest.mark.parametrize(
    ("template", "phrase", "prompt"),
    [
        ("a {}", "owl", "an owl"),
        ("a {}", "sks owl", "a sks owl"),
        ("An {} on a hill", "sks owl", "A sks owl on a hill"),
        ("A {} on a hill", "owl", "An owl on a hill"),
        ("an oil painting of a {}", "owl", "an oil painting of an owl"),
        ("a red {} in a barn", "owl", "a red owl in a barn"),
        ("the {}", "owl", "the owl"),
        ("panda {}", "owl", "panda owl"),
        ("{} at sea", "V* dog", "V* dog at sea"),
        ("a {}", "{} dog", "a {} dog"),
        ("a {}", "  sks \t dog ", "a sks dog"),
        ("a {}", r"\1 dog", r"a \1 dog"),
    ],
)
def test_the_article_before_the_slot_follows_the_phrase(
    template: str, phrase: str, prompt: str
) -> None:
    assert filled(template, phrase) == prompt


@pytest.mark.parametrize("phrase", ["", " ", "a sks dog", "An owl"])
def test_a_phrase_that_cannot_fill_is_refused(phrase: str) -> None:
    with pytest.raises(TastemakerError, match="cannot fill 'a {} at sea'.*without an article"):
        filled("a {} at sea", phrase)


@pytest.mark.parametrize(
    ("text", "words"), [("a dog", "no slot"), ("a {0} {1}", "no slot"), ("{} and {}", "2 slots")]
)
def test_a_sentence_has_one_slot(text: str, words: str) -> None:
    with pytest.raises(TastemakerError, match=f"line 3.*{words}"):
        as_template(text, "line 3")
    with pytest.raises(TastemakerError, match=words):
        filled(text, "dog")


@given(st.lists(sentences, min_size=1), st.data())
def test_parts_hold_every_template_once(templates: list[str], data: st.DataObject) -> None:
    unique = set(templates)
    number = data.draw(st.integers(1, len(unique)))
    split = parts(templates, number, data.draw(st.integers(0, 9)))
    assert len(split) == number
    assert sorted(template for part in split for template in part) == sorted(unique)
    sizes = [len(part) for part in split]
    assert max(sizes) - min(sizes) <= 1
    assert all(part == sorted(part, key=templates.index) for part in split)


@given(st.lists(sentences, min_size=2, unique=True), st.data())
def test_parts_do_not_depend_on_the_order_of_templates(
    templates: list[str], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(templates))
    split, other = parts(templates, 2), parts(shuffled, 2)
    assert [set(part) for part in split] == [set(part) for part in other]


def test_seeds_give_other_parts() -> None:
    live = load_templates("live")
    assert len({tuple(parts(live, 2, seed)[0]) for seed in range(8)}) == 8


@pytest.mark.parametrize("number", [0, 3])
def test_parts_are_not_empty(number: int) -> None:
    with pytest.raises(TastemakerError, match="2 templates cannot be split.*ask for 1 to 2 parts"):
        parts(["a {}", "a red {}", "a {}"], number)


@pytest.mark.parametrize(("name", "number"), list(zip(SETS, (25, 25, 48, 24), strict=True)))
def test_our_sets_are_whole(name: str, number: int) -> None:
    templates = load_templates(name)
    assert len(templates) == len(set(templates)) == number
    assert any(each.startswith("a sks owl ") for each in prompts(set=name, subject="sks owl"))
    assert any(each.startswith("an owl ") for each in prompts(set=name, subject="owl"))


def test_scenes_are_in_words_that_nano_knows_and_held_out_ones_are_others() -> None:
    scenes, held_out = (load_templates(name) for name in ("scenes", "scenes_held_out"))
    assert not set(scenes) & set(held_out)
    words = {word for text in (*scenes, *held_out) for word in text.replace("{}", "").split()}
    assert words <= set(vocabulary())


def test_the_parts_of_a_set_share_no_prompt() -> None:
    split = [prompts(subject="sks dog", part=part, of=3, seed=5) for part in (3, 1, 2)]
    assert sorted(map(len, split)) == [8, 8, 9]
    assert sorted(itertools.chain(*split)) == sorted(prompts(subject="sks dog"))
    assert prompts(subject="sks dog", part=3, of=3, seed=5, number=4) == split[0][:4]


def test_a_file_of_templates(tmp_path: Path) -> None:
    file = put(tmp_path / "mine.txt", "\ufeffa {} at sea\n\n  an {} at  sea\r\na {} on a hill\n")
    assert load_templates(file) == ["a {} at sea", "a {} on a hill"]
    assert prompts(set=file, subject="owl") == ["an owl at sea", "an owl on a hill"]


@pytest.mark.parametrize(
    ("name", "content", "options", "words"),
    [
        ("a.txt", "a {}\na dog\n", {}, "a.txt, line 2: 'a dog' has no slot"),
        ("a.txt", "\na {} and a {}", {}, "a.txt, line 2.*2 slots"),
        ("a.txt", "\n \n", {}, "a.txt has no templates"),
        ("a.csv", "a {}", {}, "a.csv: templates come as .txt.*words="),
        ("a.txt", PAPERS, {}, "two lists.*kind=live or kind=object"),
        ("a.txt", "a {}", {"kind": "live"}, "line 1 is under no heading"),
        ("a.txt", "a {}", {"kind": "live", "words": ["dog"]}, "keep one"),
        ("a.txt", "a cat\ntwo dogs", {"words": ["dog"]}, "no caption.*2: names none"),
        ("a.txt", "a dog", {"words": [" "]}, "name the class"),
        ("a.txt", " ", {"words": ["dog"]}, "has no captions"),
        ("a.csv", "a dog", {"words": ["dog"]}, "come as .txt, .json, not '.csv'"),
        ("a.json", '{"images": []}', {"words": ["dog"]}, "no list 'annotations'"),
        ("a.json", '{"annotations": [{"bbox": []}]}', {"words": ["dog"]}, r"\[0\] has no text"),
        ("a.json", "{", {"words": ["dog"]}, "is not JSON"),
        ("a.txt", "a {}\na red {}", {"of": 3}, "2 templates cannot be split into 3 parts"),
        ("a.txt", "a {}\na red {}", {"of": 2, "part": 3}, "part=3 of prompts.of=2"),
        ("a.txt", "a {}", {"kind": "dead"}, "option 'kind' = 'dead'"),
        ("a.txt", "a {}", {"subject": " "}, "option 'subject'"),
    ],
)
def test_bad_files_and_options(
    tmp_path: Path, name: str, content: str, options: dict[str, Any], words: str
) -> None:
    file = put(tmp_path / name, content)
    with pytest.raises(TastemakerError, match=words):
        prompts(**{"set": file, "subject": "sks dog", **options})


def test_a_set_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TastemakerError, match=r"'liv' is not a file. Did you mean live\?"):
        prompts(set="liv", subject="dog")
    with pytest.raises(TastemakerError, match="are shipped"):
        prompts(subject="dog", words=["dog"])
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe{}")
    with pytest.raises(TastemakerError, match="not UTF-8"):
        prompts(set=str(tmp_path / "a.txt"), subject="dog")


def test_options_are_checked_with_the_configuration() -> None:
    overrides = ("model=m", "prompts=templates", "prompts.set=object", "prompts.of=2")
    config = section(GenerateConfig, None, (*overrides, "prompts.subject=sks dog"))
    assert load_prompts(config.prompts) == prompts(subject="sks dog", set="object", of=2)
    with pytest.raises(TastemakerError, match="option 'subject' is required"):
        section(GenerateConfig, None, overrides)


def test_dreambooths_file(tmp_path: Path) -> None:
    file = put(tmp_path / "prompts_and_classes.txt", PAPERS)
    held = read_dreambooth(Path(file))
    assert held.classes == {"owl": "owl", "vase2": "blue vase"}
    assert held.templates["object"] == ["a {} on a table", "a {} on a painter's table"]
    assert held.templates["live"] == ["a {} at sea", "a {} on a table", "a {} at sea"]
    owls = prompts(set=file, kind="live", subject="owl")
    assert owls == ["an owl at sea", "an owl on a table"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("owl,owl", "owl", "line 4: 'owl' is not 'subject_name,class'"),
        ("owl,owl", "owl,", "line 4"),
        ("{0} {1} at sea", "{0} at sea", r"line 19: .* is not 'a {0} {1}"),
        ("'a {0} {1} at sea'.format(unique_token, class_token)", "exit()", "line 19"),
        ("Live Subject Prompts", "", "nothing under 'Live Subject Prompts'"),
        ("owl,owl\nvase2,blue vase\n", "", "nothing under 'Classes'"),
    ],
)
def test_files_that_are_not_dreambooths(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in PAPERS
    file = put(tmp_path / "a.txt", PAPERS.replace(old, new))
    with pytest.raises(TastemakerError, match=words):
        prompts(set=file, kind="object", subject="sks dog")


@pytest.mark.skipif(not SHARED.is_file(), reason="needs DreamBooth's data set")
def test_dreambooths_own_file() -> None:
    held = read_dreambooth(SHARED)
    assert len(held.classes) == 30
    assert held.classes["dog6"] == "dog"
    assert {kind: len(templates) for kind, templates in held.templates.items()} == {
        "live": 25,
        "object": 25,
    }
    ours = {template for name in SETS for template in load_templates(name)}
    assert not ours & {*held.templates["live"], *held.templates["object"]}


@pytest.mark.parametrize(
    ("caption", "template"),
    [
        ("A dog lying  on a couch.\n", "A {} lying on a couch"),
        ("An owl in a tree", "A {} in a tree"),
        ("The small brown DOG, wet from rain", "The small brown {}, wet from rain"),
        ("two people and a dog", "two people and a {}"),
        ("a woman with that big black wet puppy", "a woman with that big black wet {}"),
    ],
)
def test_captions_that_become_templates(caption: str, template: str) -> None:
    result = rewritten([caption], ["dog", " Puppy", "owl"])
    assert (result.templates, result.left_out) == ([template], {})


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("a cat", NOT_NAMED),
        ("a dog-shaped cake", NOT_NAMED),
        ("dogma", NOT_NAMED),
        ("dogs at play", NOT_NAMED),
        ("two sleeping puppies", NOT_NAMED),
        ("three white sheep", NOT_NAMED),
        ("a herd of sheep", NOT_NAMED),
        ("a dog's bowl", NOT_NAMED),
        ("a dog’s bowl", NOT_NAMED),
        ("a dog and another dog", TWICE),
        ("a {} dog", BRACES),
    ],
)
def test_captions_that_are_left_out(caption: str, reason: str) -> None:
    result = rewritten([caption], ["dog", "puppy", "sheep"])
    assert (result.templates, result.left_out) == ([], {reason: 1})


def test_the_longest_name_is_the_one_meant() -> None:
    assert rewritten(["a teddy bear on a bed"], ["bear", "teddy bear"]).templates == [
        "a {} on a bed"
    ]


def test_captions_are_counted(tmp_path: Path) -> None:
    captions = ["A dog.", "an  owl", "A owl", "a dog", "two dogs", "a cat", " "]
    rows = [{"id": number, "caption": caption} for number, caption in enumerate(captions)]
    coco = put(tmp_path / "captions.json", json.dumps({"info": {}, "annotations": rows}))
    text = put(tmp_path / "captions.txt", "\n".join(captions))
    read = read_captions(Path(coco))
    assert read == read_captions(Path(text)) == captions[:-1]
    result = rewritten(read, ["dog", "owl"])
    assert result.templates == ["A {}", "a {}"]
    assert result.left_out == {REPEATED: 2, NOT_NAMED: 2}
    assert prompts(set=coco, words=["dog", "owl"], subject="owl") == ["An owl", "an owl"]


@given(st.text("dogs an{}'. ", max_size=20), st.text("dog ", max_size=5))
def test_whatever_the_captions_templates_can_be_filled(caption: str, word: str) -> None:
    if word.strip():
        result = rewritten([caption], [word])
        assert [filled(template, "sks cat") for template in result.templates] == [
            " ".join(template.replace("{}", "sks cat").split()) for template in result.templates
        ]
        assert len(result.templates) + sum(result.left_out.values()) == 1


class TestCaptionsBehindTemplates:
    def of(self, file: Path, **options: Any) -> list[str]:
        given = {"subject": "sks owl", "set": "live", "captions": str(file), **options}
        return load_prompts(Choice(name="templates", **given))

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "captions.txt"
        path.write_text("".join(f"Scene  {number}.\n" for number in range(80)) + "{x}\nScene 3\n")
        return path

    def test_two_rounds_of_a_thousand(self, file: Path) -> None:
        rounds = [self.of(file, part=part, of=2) for part in (1, 2)]
        assert [len(each) for each in rounds] == [1000, 1000]
        templates = [filled(each, "sks owl") for each in load_templates("live")]
        product = {f"{each}, Scene {number}" for each in templates for number in range(80)}
        assert {*rounds[0], *rounds[1]} == product

    def test_the_first_prompts_mix_both_and_stay(self, file: Path) -> None:
        some, more = (self.of(file, number=number) for number in (100, 1500))
        assert more[:100] == some
        assert len({prompt.rpartition(", ")[0] for prompt in some}) == 25
        assert len({prompt.rpartition(", ")[2] for prompt in some}) > 40
        assert self.of(file, number=100, seed=1) != some

    def test_captions_that_cannot_be(self, tmp_path: Path) -> None:
        file = tmp_path / "captions.txt"
        file.write_text("a {cat}\n")
        with pytest.raises(TastemakerError, match="all captions have braces"):
            self.of(file)


def test_prompts_of_other_benchmarks_are_read_as_they_are(tmp_path: Path) -> None:
    """CustomConcept101: lines with the slot; DreamBench++: the subject, then its captions."""
    concept = tmp_path / "pet_cat1.txt"
    concept.write_text("photo of a {}\n{} in snow\n", encoding="utf-8")
    given = {"name": "templates", "subject": "sks cat"}
    found = load_prompts(Choice(**given, set=str(concept)))
    assert found == ["photo of a sks cat", "sks cat in snow"]
    plus = tmp_path / "00.txt"
    plus.write_text("Cat\nA photo of a cat on a sofa.\nA cat, drawn in ink.\n", encoding="utf-8")
    found = load_prompts(Choice(**given, set=str(plus), words=["cat"]))
    assert found == ["A photo of a sks cat on a sofa", "A sks cat, drawn in ink"]
