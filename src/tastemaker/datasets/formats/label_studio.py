"""Label Studio's JSON: tasks of two images, each with its annotators' pairwise choices."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping
from itertools import chain, groupby
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import require_file
from tastemaker.core.registry import COMPARISONS, LAYOUTS
from tastemaker.datasets.comparisons import (
    BOTH_BAD,
    Comparison,
    Label,
    WrongLabel,
    of_two,
    or_left_out,
    prompt_of,
    read_label,
)
from tastemaker.datasets.formats.image_files import ImageFolder, image_at, named_images
from tastemaker.datasets.formats.json_items import json_items
from tastemaker.datasets.items import LeftOut, Refused, Source
from tastemaker.datasets.listing import unnamed
from tastemaker.datasets.verdicts import DEFAULT_QUESTION
from tastemaker.storage.files import atomic, config_key, write_text
from tastemaker.storage.votes import SKIP, Answer, Vote, checked_voter, task_id

FILE, CONFIG = "tasks.json", "label_config.xml"

SIDES = (("image1", "image2"), ("image_a", "image_b"), ("img1", "img2"), ("left", "right"))
"""Keys of a task's two images where the annotations do not name them, left first."""

CONTROLS = """\
<View>
  <Header value="$prompt"/>
  <Pairwise name="preferred" toName="image1,image2"/>
  <View style="display: grid; grid-template: auto / 1fr 1fr; column-gap: 8px">
    <Image name="image1" value="$image1"/>
    <Image name="image2" value="$image2"/>
  </View>
  <Choices name="neither" toName="image1" choice="single-radio">
    <Choice value="tie"/>
    <Choice value="both_bad"/>
  </Choices>
</View>
"""


@COMPARISONS.register("label_studio")
def label_studio(
    *,
    path: Annotated[str, Field(description="A .json export; or a folder: tasks.json.")],
    images: Annotated[
        str | None, Field(description="Folder that the images' paths begin in; null: the file's.")
    ] = None,
) -> Source[Comparison]:
    """Label Studio's JSON of tasks with two images, `Pairwise` choices and annotators.

    An annotation is a comparison: `selected` is left or right; `Choices` of "tie" and "both_bad"
    are those; an annotation without either has no verdict. Images are files; the part of a path up
    to `?d=`, by which Label Studio serves local files, is left off.

    Args:
        path: The file: a list of tasks.
        images: Folder of the images.

    Returns:
        Its comparisons, one per annotation.

    Raises:
        TastemakerError: No such file.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    require_file(file)
    root = Path(images) if images else file.parent
    files = chain([file], named_images(root, _names(file)))
    beside = unnamed(file, chain(_names(file), [CONFIG])) if root == Path(path) else ()
    return Source(files, _comparisons(file, root), beside)


@LAYOUTS.register("label_studio")
def write_label_studio(
    comparisons: Iterator[Comparison],
    folder: Path,
    *,
    prefix: Annotated[
        str,
        Field(description="Text before each image's path, e.g. /data/local-files/?d=FOLDER/."),
    ] = "",
) -> None:
    """Label Studio's tasks.json with annotations, its labelling interface, and the images.

    Comparisons of the same two images that follow one another are annotations of one task. Ids of
    the images and models are in the tasks' `meta`, which annotators do not see.

    Args:
        comparisons: Of two images each.
        folder: Output folder.
        prefix: Text before each image's path.
    """
    images = ImageFolder(folder)
    write_text(folder / CONFIG, CONTROLS)
    with atomic(folder / FILE) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, (_, group) in enumerate(groupby(comparisons, _same_task)):
            file.write(",\n" if number else "\n")
            json.dump(_task(number, list(group), images, prefix), file, ensure_ascii=False)
        file.write("\n]\n")


def label_studio_votes(file: Path) -> list[Vote]:
    """Read the annotations of an export as votes on the overall question, each chosen at random.

    Images have the ids that `export ... layout=label_studio` wrote, or else their paths; voters the
    name that it wrote, or else that, address or number of `completed_by`.

    Args:
        file: A .json export.

    Returns:
        Votes; an annotation without a choice is a skipped task, a cancelled one is none.

    Raises:
        TastemakerError: The file is torn, or an item is not a task of two images.
    """
    votes = []
    for number, task in json_items(file):
        for annotation in _annotations(task, f"{file}, task {number}"):
            try:
                votes.append(_vote(task, annotation))
            except TastemakerError as error:
                raise TastemakerError(f"{file}, task {number}: {error}") from None
    return votes


def _same_task(comparison: Comparison) -> tuple[Any, ...]:
    return comparison.prompt, comparison.ids or comparison.images


def _task(
    number: int, comparisons: list[Comparison], images: ImageFolder, prefix: str
) -> dict[str, Any]:
    first = comparisons[0]
    names = [prefix + images.put(number, place, each) for place, each in enumerate(first.images)]
    meta: dict[str, Any] = {"ids": list(first.ids)} if first.ids else {}
    if any(first.models):
        meta["models"] = list(first.models)
    return {
        "data": {"prompt": first.prompt, "image1": names[0], "image2": names[1]},
        "meta": meta,
        "annotations": [{"result": _result(each)} for each in comparisons],
    }


def _result(comparison: Comparison) -> list[dict[str, Any]]:
    if not comparison.judged:
        return []
    if comparison.tied:
        value: dict[str, Any] = {"choices": [BOTH_BAD if comparison.bad else "tie"]}
        result = {"from_name": "neither", "to_name": "image1", "type": "choices", "value": value}
    else:
        value = {"selected": "left" if comparison.verdicts[0] == 1 else "right"}
        names = {"from_name": "preferred", "to_name": "image1,image2"}
        result = {**names, "type": "pairwise", "value": value}
    return [{**result, **({"meta": {"text": [comparison.voter]}} if comparison.voter else {})}]


def _names(file: Path) -> Iterator[object]:
    """Yield the paths in the tasks; a torn file is reported when comparisons are read."""
    with contextlib.suppress(TastemakerError):
        for number, task in json_items(file):
            for annotation in _annotations(task, f"task {number}")[:1] or [{}]:
                yield from map(_path, _images(task, annotation))


def _comparisons(file: Path, root: Path) -> Iterator[Comparison | LeftOut]:
    try:
        for number, task in json_items(file):
            place = f"{file.name}, task {number}"
            for i, annotation in enumerate(_annotations(task, place)):
                where = f"{place}, annotation {i}"
                read = functools.partial(_comparison, root, where, task, annotation)
                yield or_left_out(where, read)
    except TastemakerError as error:
        yield Refused(file.name, str(error))


def _comparison(root: Path, where: str, task: Any, annotation: Any) -> Comparison:
    first, second = (image_at(root, _path(name)) for name in _images(task, annotation))
    models = _meta(task, "models") or ("", "")
    sides = (models[0], models[1])
    return of_two(where, prompt_of(task["data"]), (first, second), _label(annotation), sides)


def _annotations(task: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        raise WrongLabel(f"{where} is not a task of Label Studio with `data`; export JSON.")
    found = task.get("annotations") or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise WrongLabel(f"{where} has no list of annotations; export JSON, not JSON-MIN.")
    return [each for each in found if not each.get("was_cancelled")]


def _results(annotation: Mapping[str, Any]) -> list[dict[str, Any]]:
    results = annotation.get("result") or []
    return [each for each in results if isinstance(each, dict)]


def _images(task: Mapping[str, Any], annotation: Mapping[str, Any]) -> tuple[str, str]:
    """Return the paths of a task's two images, left first."""
    data = task["data"]
    named = [str(each.get("to_name", "")).split(",") for each in _results(annotation)]
    for keys in (*named, *SIDES):
        if len(keys) == 2 and all(isinstance(data.get(key), str) for key in keys):
            return data[keys[0]], data[keys[1]]
    raise TastemakerError(
        f"a task's data has no two images; name them image1 and image2: it has {sorted(data)}"
    )


def _path(name: object) -> str:
    return str(name).partition("?d=")[2] or str(name)


def _meta(task: Mapping[str, Any], key: str) -> tuple[str, ...]:
    meta = task.get("meta")
    found = meta.get(key) if isinstance(meta, dict) else None
    both = isinstance(found, list) and len(found) == 2
    return tuple(map(str, found)) if both and found else ()


def _label(annotation: Mapping[str, Any]) -> Label:
    """Read the label of the left image; None where nothing was chosen."""
    for each in _results(annotation):
        value = each.get("value")
        value = value if isinstance(value, dict) else {}
        if each.get("type") == "pairwise":
            side = value.get("selected")
            if side not in {"left", "right"}:
                raise WrongLabel(f"selected is {side!r}; it must be left or right")
            return float(side == "left")
        if each.get("type") == "choices" and value.get("choices"):
            return read_label(value["choices"][0], "the choice")
    return None


def _vote(task: Any, annotation: dict[str, Any]) -> Vote:
    label = _label(annotation)
    shown = _meta(task, "ids") or _images(task, annotation)
    answers: dict[Any, Answer] = {1.0: "left", 0.0: "right", 0.5: "tie", None: SKIP}
    voter = checked_voter(_voter(annotation))
    seconds = annotation.get("lead_time")
    said = [task.get("id"), annotation.get("id"), task["data"], shown, voter, label]
    return Vote(
        vote_id=f"label_studio-{config_key(*said)}",
        voter=voter,
        at=str(annotation.get("created_at") or ""),
        task_id=task_id(DEFAULT_QUESTION, "pair", shown),
        prompt=prompt_of(task["data"]),
        shown=shown,
        models=_meta(task, "models") or ("", ""),
        question=DEFAULT_QUESTION,
        kind="pair",
        answer=answers.get(label, BOTH_BAD),
        seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
        chosen_by="random",
        probability=1.0,
    )


def _voter(annotation: Mapping[str, Any]) -> str:
    for each in _results(annotation):
        meta = each.get("meta")
        text = meta.get("text") if isinstance(meta, dict) else None
        if isinstance(text, list) and text:
            return str(text[0])
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = next((by[key] for key in ("username", "email", "id") if by.get(key)), None)
    return "annotator" if by is None else f"annotator {by}" if isinstance(by, int) else str(by)
