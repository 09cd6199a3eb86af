"""The page of `dnm-bench score`: a contact sheet of images by score, each with its explanation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dnm_sklearn._utils.safe_text import file_name_text
from dnm_sklearn.bench.html.images import SIDE, common_folder, path_below, thumbnail
from dnm_sklearn.bench.html.rendering import render
from dnm_sklearn.exceptions import UnreadableImageError

# A thumbnail takes some 5 kB: a page of a thousand is 5 MB.
LARGEST = 1000


@dataclass
class Label:
    """A line of an explanation; probabilities in percent."""

    side: str
    name: str
    cosine: float
    percent: float


@dataclass
class Card:
    """One image: its thumbnail, its path below the common folder, and what was said of it."""

    image: str
    path: str
    score: float
    is_ood: bool
    nearest: str
    labels: list[Label] = field(default_factory=list)


def make_score_page(
    paths: Sequence[str],
    lines: Iterable[Sequence[str]],
    explained: Iterable[Sequence[str]],
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    threshold: float,
) -> str:
    """Make the page of a job's lines and explanations, which are in the order of `paths`.

    The images of highest score are shown, `LARGEST` of them.
    """
    answers = list(lines)
    scored = [i for i, line in enumerate(answers) if line[1]]
    scored.sort(key=lambda i: -float(answers[i][1]))
    shown = scored[:LARGEST]
    common = common_folder(paths)

    cards: dict[int, Card] = {}
    unreadable = [
        (path_below(paths[i], common), line[6]) for i, line in enumerate(answers) if line[6]
    ]
    for i in shown:
        line = answers[i]
        try:
            image = thumbnail(paths[i])
        except UnreadableImageError as error:
            # It was there when it was scored, perhaps by another machine or call.
            unreadable.append((path_below(paths[i], common), file_name_text(str(error))))
            continue
        path = path_below(paths[i], common)
        cards[i] = Card(image, path, float(line[1]), line[2] == "True", line[4])

    # Explanations have the name of their image, and images may be given twice.
    by_name: dict[str, list[Card]] = {}
    for i, card in cards.items():
        by_name.setdefault(answers[i][0], []).append(card)
    seen: set[tuple[str, ...]] = set()
    for name, side, rank, label, _, cosine, probability, _ in explained:
        if name not in by_name or (name, side, rank) in seen:
            continue
        seen.add((name, side, rank))
        for card in by_name[name]:
            card.labels.append(Label(side, label, float(cosine), 100 * float(probability)))

    n_flagged = sum(line[2] == "True" for line in answers if line[1])
    return render(
        "score_page.html.j2",
        "score_page.js",
        title=title,
        facts=facts,
        cards=list(cards.values()),
        unreadable=unreadable,
        n_scored=len(scored),
        n_flagged=n_flagged,
        threshold=threshold,
        side=SIDE,
    )
