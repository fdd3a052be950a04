"""DreamBoothDPO: a personalised model that keeps its subject and obeys the prompt, in rounds."""

from __future__ import annotations

from pathlib import Path

from tastemaker.config.personalization import PersonalizeConfig, PriorConfig
from tastemaker.config.runs import PersonalRun
from tastemaker.core.registry import RECIPES
from tastemaker.evaluation.evaluate import evaluate
from tastemaker.evaluation.score import score
from tastemaker.pairing.pair import pair
from tastemaker.sampling.generate import generate
from tastemaker.storage.run_dir import RunDir
from tastemaker.training.personalization.personalize import personalize
from tastemaker.training.preference.train import train


@RECIPES.register("dreambooth_dpo")
def dreambooth_dpo(config: PersonalRun, run: RunDir) -> None:
    """Personalise a model, then teach it fidelity and prompt at once, without human labels.

    1. Personalise the base on photographs of a subject; on request with images of its class.
    2. A round: draw N candidates for each prompt of its own part; score them for closeness to the
       photographs and to the prompt, in which the class stands for the subject; keep the pairs
       whose difference points into the window of angles; train, with the model of the round
       before as reference.
    3. Again, with the next part of the prompts and the new model.
    4. Judge every round's model against the personalised one.

    Args:
        config: The run: the subject, the rounds, the rule.
        run: Its folder.

    References:
        DreamBoothDPO, arXiv 2505.20975.
    """
    model = personalize(_with_prior(config, run), run.model("personalized"))
    judged = config.evaluate.model_copy(update={"base": str(model)})
    models: dict[str, Path] = {}
    for number in range(1, config.rounds + 1):
        label = "policy" if number == config.rounds else f"round_{number}"
        pairs = _round_pairs(config, run, number, model)
        training = config.train.model_copy(update={"model": str(model)})
        model = models[label] = train(training, pairs, run.model(label))
    evaluate(judged, models, run.evaluation, run.report_json)


def _round_pairs(config: PersonalRun, run: RunDir, number: int, model: Path) -> Path:
    """Draw, score and pair the candidates of one round."""
    own = {"model": str(model), "prompts": config.round_prompts(number)}
    pool = generate(config.generate.model_copy(update=own), run.round(number))
    return pair(config.pair, score(config.score, pool), run.stage_pairs(f"round_{number}"))


def _with_prior(config: PersonalRun, run: RunDir) -> PersonalizeConfig:
    """The personalisation, with images of the class where the run asks for them."""
    if config.class_images is None:
        return config.personalize
    pool = generate(config.class_images, run.source("class_images"))
    prior = PriorConfig(pool=str(pool), weight=config.prior_weight)
    return config.personalize.model_copy(update={"prior": prior})
