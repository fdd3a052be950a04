"""DreamBooth: photographs of a subject to a trained model."""
