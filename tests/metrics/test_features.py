"""Features by name: each is what it says it is, and nothing else is called FID."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pictures import noise
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import SCORERS
from tastemaker.metrics.features import check_features, feature_network
from tastemaker.metrics.frechet import frechet_distance
from tastemaker.metrics.kernel_distance import kernel_distance
from tastemaker.metrics.networks import features_identity
from tastemaker.scorers.availability import refuse_missing
from tastemaker.scorers.clip import ClipScorer

# The format outlives its maker: torch says so at every turn, and still reads it.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

MODULE = "torch_fidelity.feature_extractor_inceptionv3"


class MeanColour(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.dropout(pixels.mean((2, 3)))


@pytest.fixture
def torchscript(tmp_path: Path) -> Path:
    path = tmp_path / "mean_colour.pt"
    torch.jit.script(MeanColour()).save(str(path))
    return path


class TestClips:
    def test_a_folder_gives_its_image_features(self, tiny_clip: Path) -> None:
        images = [noise(0, 8, 8), noise(1, 20, 9), noise(2, 8, 8)]
        label, features = feature_network(str(tiny_clip))
        assert label == f"clip:{tiny_clip.name}"
        found = features(images)
        assert found.dtype == torch.float64
        assert not found.requires_grad
        expected = ClipScorer(model=str(tiny_clip)).features(images).double()
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)

    def test_batches_enter_no_number(self, tiny_clip: Path) -> None:
        images = [noise(seed, 8, 8) for seed in range(5)]
        whole = feature_network(str(tiny_clip)).features(iter(images))
        parts = feature_network(str(tiny_clip), batch_size=2).features(iter(images))
        torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
    def test_modes_are_converted(self, tiny_clip: Path, mode: str) -> None:
        features = feature_network(str(tiny_clip)).features
        image = noise(3, 8, 8).convert(mode)
        torch.testing.assert_close(features([image]), features([image.convert("RGB")]))

    def test_a_registered_scorer_gives_its_own(self) -> None:
        images = [noise(4, 64, 64), noise(5, 64, 64)]
        label, features = feature_network("nano_judge")
        assert label == "nano_judge"
        expected = SCORERS.bind("nano_judge", {})().features(images).double()
        torch.testing.assert_close(features(images), expected)

    def test_no_images(self, tiny_clip: Path) -> None:
        with pytest.raises(TastemakerError, match="no images"):
            feature_network(str(tiny_clip)).features([])


class TestTorchScript:
    def test_a_file_gives_its_output(self, torchscript: Path) -> None:
        label, features = feature_network(str(torchscript), batch_size=1)
        assert label == "torchscript:mean_colour"
        red = Image.new("RGB", (3, 2), (255, 0, 51))
        # In evaluation mode, from pixels in [0, 1].
        torch.testing.assert_close(
            features([red, Image.new("L", (3, 2))]),
            torch.tensor([[1, 0, 0.2], [0, 0, 0]], dtype=torch.float64),
            atol=1e-6,
            rtol=0,
        )

    def test_distances_take_them(self, torchscript: Path) -> None:
        features = feature_network(str(torchscript)).features
        a, b = features(map(noise, range(6))), features(map(noise, range(6, 12)))
        assert frechet_distance(a, b) > 0
        assert kernel_distance(a, a + 1).value > kernel_distance(a, b).value

    def test_sizes_that_differ(self, torchscript: Path) -> None:
        with pytest.raises(TastemakerError, match="differ in size"):
            feature_network(str(torchscript)).features([noise(0, 8, 8), noise(1, 9, 9)])

    def test_files_that_are_none(self, tmp_path: Path) -> None:
        with pytest.raises(TastemakerError, match=r"gone\.pt' does not exist"):
            feature_network(str(tmp_path / "gone.pt"))
        weights = tmp_path / "weights.pth"
        torch.save(MeanColour().state_dict(), weights)
        with pytest.raises(TastemakerError, match=r"weights\.pth' is not a TorchScript file"):
            feature_network(str(weights))
        text = tmp_path / "notes"
        text.write_text("a network")
        with pytest.raises(TastemakerError, match="notes' is not a TorchScript file"):
            feature_network(str(text))


class TestInception:
    def test_without_its_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch_fidelity", None)
        with pytest.raises(TastemakerError, match=r"pip install .tastemaker\[inception\]"):
            feature_network("inception")

    @pytest.fixture
    def fidelity(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        """The package's interface: bytes in, a tuple of features out."""
        module = ModuleType(MODULE)

        class FeatureExtractorInceptionV3(nn.Module):
            def __init__(
                self,
                name: str,
                features_list: list[str],
                feature_extractor_weights_path: str | None = None,
            ) -> None:
                super().__init__()
                assert features_list == ["2048"]
                self.added = 0
                if feature_extractor_weights_path is not None:
                    self.added = torch.load(feature_extractor_weights_path)["added"]

            def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
                assert pixels.dtype == torch.uint8
                return (pixels.flatten(1).float() + self.added,)

        module.FeatureExtractorInceptionV3 = FeatureExtractorInceptionV3  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
        monkeypatch.setitem(sys.modules, MODULE, module)
        return module

    def test_it_sees_the_images_bytes_and_alone_is_fid(self, fidelity: ModuleType) -> None:
        label, features = feature_network("inception")
        assert label == "Inception pool3"
        every = Image.fromarray(np.arange(768, dtype=np.uint16).reshape(16, 16, 3).astype(np.uint8))
        expected = torch.from_numpy(np.array(every)).permute(2, 0, 1).flatten()[None].double()
        assert torch.equal(features([every]), expected)

    def test_weights_of_a_file(self, fidelity: ModuleType, tmp_path: Path) -> None:
        file = tmp_path / "weights.pth"
        torch.save({"added": 3}, file)
        label, features = feature_network(f"inception:{file}")
        assert label == "Inception pool3"
        black = Image.new("RGB", (1, 1))
        assert features([black]).tolist() == [[3, 3, 3]]
        first = features_identity(f"inception:{file}")
        assert first.label == label
        torch.save({"added": 4}, file)
        assert features_identity(f"inception:{file}") != first
        file.write_bytes(b"torn")
        with pytest.raises(TastemakerError, match="does not hold torch-fidelity's weights"):
            feature_network(f"inception:{file}")
        with pytest.raises(TastemakerError, match="does not exist"):
            features_identity(f"inception:{tmp_path}/gone.pth")

    def test_weights_out_of_reach(
        self, fidelity: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fetch(*arguments: object, **options: object) -> None:
            raise OSError("no route to host")

        monkeypatch.setattr(fidelity, "FeatureExtractorInceptionV3", fetch)
        with pytest.raises(TastemakerError, match="cannot be fetched .no route to host.*put"):
            feature_network("inception")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sharpness", "'sharpness' gives scores alone"),
        ("clip", "option 'model' is required"),
        ("nano_juge", "'nano_juge' gives no features: name 'inception'.*hub"),
        ("./no/folder", "does not exist"),
    ],
)
def test_names_without_features(name: str, words: str) -> None:
    with pytest.raises(TastemakerError, match=words):
        feature_network(name)
    with pytest.raises(TastemakerError):  # before any weights are loaded, too
        check_features(name, refuse_missing)


def test_bad_batches() -> None:
    with pytest.raises(TastemakerError, match="batch_size is 0"):
        feature_network("inception", batch_size=0)
