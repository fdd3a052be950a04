"""Rebuild the weights of `nano` from public art: `python -m tastemaker.nano.build --work DIR`.

Needs npm on the path and the packages resvg-py and pillow besides torch, diffusers and
transformers. Every stage goes on from what is in the work folder.
"""
