"""Tastemaker teaches text-to-image diffusion models what people prefer.

    import tastemaker as tm

    config = tm.load("demo")
    pool = tm.score(config.score, tm.generate(config.generate, Path("runs/mine/candidates")))

Every command is a function of its configuration, imported when it is first used, so that importing
this package is cheap. Recipes call them in the order of a paper; `tastemaker run NAME` runs one
from a YAML file.
"""

from typing import TYPE_CHECKING

from tastemaker.core import __version__ as __version__
from tastemaker.core.lazy import lazy_exports

if TYPE_CHECKING:
    from tastemaker import losses as losses
    from tastemaker.config.datasets import DataExportConfig as DataExportConfig
    from tastemaker.config.datasets import ImagesConfig as ImagesConfig
    from tastemaker.config.datasets import ImportConfig as ImportConfig
    from tastemaker.config.datasets import JoinConfig as JoinConfig
    from tastemaker.config.datasets import PairConfig as PairConfig
    from tastemaker.config.datasets import ShowConfig as ShowConfig
    from tastemaker.config.evaluation import EvaluateConfig as EvaluateConfig
    from tastemaker.config.exchange import ExportConfig as ExportConfig
    from tastemaker.config.exchange import LoraImportConfig as LoraImportConfig
    from tastemaker.config.exchange import PublishConfig as PublishConfig
    from tastemaker.config.loading import load as load
    from tastemaker.config.personalization import PersonalizeConfig as PersonalizeConfig
    from tastemaker.config.runs import RunConfig as RunConfig
    from tastemaker.config.sections import BlendConfig as BlendConfig
    from tastemaker.config.sections import GenerateConfig as GenerateConfig
    from tastemaker.config.sections import ReconstructConfig as ReconstructConfig
    from tastemaker.config.sections import ReportConfig as ReportConfig
    from tastemaker.config.sections import ScoreConfig as ScoreConfig
    from tastemaker.config.studio import StudioConfig as StudioConfig
    from tastemaker.config.training import LoraConfig as LoraConfig
    from tastemaker.config.training import RewardTrainConfig as RewardTrainConfig
    from tastemaker.config.training import TrainConfig as TrainConfig
    from tastemaker.config.votes import VotesConfig as VotesConfig
    from tastemaker.core.errors import TastemakerError as TastemakerError
    from tastemaker.core.registry import CREDITS as CREDITS
    from tastemaker.core.registry import JOINS as JOINS
    from tastemaker.core.registry import LOSSES as LOSSES
    from tastemaker.core.registry import METRICS as METRICS
    from tastemaker.core.registry import MODELS as MODELS
    from tastemaker.core.registry import PROMPTS as PROMPTS
    from tastemaker.core.registry import RECIPES as RECIPES
    from tastemaker.core.registry import RULES as RULES
    from tastemaker.core.registry import SCORERS as SCORERS
    from tastemaker.datasets.exporting import export_comparisons as export_comparisons
    from tastemaker.datasets.importing import import_comparisons as import_comparisons
    from tastemaker.datasets.importing import import_images as import_images
    from tastemaker.evaluation.comparison import compare as compare
    from tastemaker.evaluation.evaluate import evaluate as evaluate
    from tastemaker.evaluation.score import score as score
    from tastemaker.losses import DenoisingErrors as DenoisingErrors
    from tastemaker.pairing.join import join as join
    from tastemaker.pairing.join import mix as mix
    from tastemaker.pairing.pair import pair as pair
    from tastemaker.pairing.picks import Pick as Pick
    from tastemaker.recipes.run import run as run
    from tastemaker.reporting.pool.show import show as show
    from tastemaker.reporting.publish import publish as publish
    from tastemaker.reporting.report import report as report
    from tastemaker.reporting.votes.votes import votes as votes
    from tastemaker.sampling.blend import blend as blend
    from tastemaker.sampling.generate import generate as generate
    from tastemaker.sampling.generate import reconstruct as reconstruct
    from tastemaker.storage.groups import Group as Group
    from tastemaker.storage.pairs import PairSet as PairSet
    from tastemaker.storage.pool import Pool as Pool
    from tastemaker.studio.run import open_studio as open_studio
    from tastemaker.training.personalization.personalize import personalize as personalize
    from tastemaker.training.preference.train import train as train
    from tastemaker.training.preference.trainer import PreferenceTrainer as PreferenceTrainer
    from tastemaker.training.reward.train import train_reward as train_reward

__all__, __getattr__, __dir__ = lazy_exports(__name__)
__all__ += ["__version__"]
