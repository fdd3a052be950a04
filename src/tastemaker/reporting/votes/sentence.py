"""A sentence for a paper: who voted, what they preferred, and how sure that is."""

from __future__ import annotations

from tastemaker.reporting.votes.models import Numbers

TEST = "two-sided t test of the Bradley-Terry difference, clustered by prompt and voter"


def sentence(results: Numbers) -> str:
    """Write the result of one question in a sentence.

    Args:
        results: Of one question: numbers of voters, votes and prompts, and those of `models`.

    Returns:
        Of several models, the strongest against the next; otherwise who voted on what.

    Example:
        >>> sentence({"voters": 1, "votes": 2, "prompts": 2})
        'One voter cast 2 votes on images of 2 prompts.'
    """
    voters = "One voter" if results["voters"] == 1 else f"{results['voters']} voters"
    prompts = "one prompt" if results["prompts"] == 1 else f"{results['prompts']} prompts"
    votes = "one vote" if results["votes"] == 1 else f"{results['votes']} votes"
    cast = f"{voters} cast {votes} on images of {prompts}"
    if "models" not in results:
        return f"{cast}."
    first, second, *others = results["models"]
    found, rate = results["differences"][first][second], results["win_rates"][first][second]
    against = f"{first} ranks first of {2 + len(others)} models" if others else ""
    if rate is None:
        preferred = f"{against}; it was not compared with the next, {second}"
    else:
        preferred = (
            f"{against + ': it' if others else first} was preferred to {second} in"
            f" {100 * rate['value']:.1f} % of {rate['votes']} comparisons, ties counted half"
            f" (95 % interval {100 * rate['low']:.1f} to {100 * rate['high']:.1f} %)"
        )
    adjusted = f", Holm's adjustment over {_pairs(len(others) + 2)} pairs" if others else ""
    return (
        f"{cast}; {preferred}; difference in strength {found['value']:.2f}"
        f" [{found['low']:.2f}, {found['high']:.2f}] in log-odds, {p_text(found['p_holm'])}"
        f" ({TEST}{adjusted})."
    )


def p_text(p: float) -> str:
    """Write a p value as papers do.

    Example:
        >>> p_text(0.0004), p_text(0.0321), p_text(0.5)
        ('p < .001', 'p = .032', 'p = .500')
    """
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)


def _pairs(number: int) -> int:
    return number * (number - 1) // 2
