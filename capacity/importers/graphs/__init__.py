"""Readers of networks that are no published language model: PyTorch modules, ONNX files, checkpoints.

`module` runs the user's code and needs torch, `onnx_file` needs onnx; both are asked for by an option of their own
and imported by nothing else. `checkpoint` needs neither and runs nothing.
"""
