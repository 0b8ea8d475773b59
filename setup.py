"""augjax: augmentation for small, pruned, low-bit and distilled image classifiers."""

from setuptools import find_packages, setup

PEERS = [  # for parity tests and benchmarks; torchvision and timm go in without their needs
    "torch==2.13.0", "huggingface_hub", "pyyaml",
]

setup(
    name="augjax",
    version="0.1.0",
    python_requires=">=3.11",
    packages=find_packages(include=["augjax", "augjax.*"]),
    install_requires=[
        "jax>=0.10.2", "flax>=0.12.8", "optax>=0.2.8", "orbax-checkpoint>=0.12.8",
        "ml_collections>=1.1", "absl-py", "dm-pix>=0.4.5", "numpy", "pillow",
        "tensorflow-datasets>=4.9.10", "array_record", "grain>=0.2.18",
        "scikit-learn", "tensorboardX", "tqdm", "safetensors", "msgpack", "matplotlib",
        "etils[epath]", "fsspec",  # run folders in object stores
        "flatbuffers",  # which jax.export writes with
    ],
    extras_require={
        "cuda": ["jax[cuda13]"], "tpu": ["jax[tpu]"],
        "test": ["pytest>=9", "pytest-xdist", "hypothesis"],
        "store": ["gcsfs", "s3fs"],  # gs:// and s3://
        "onnx": ["onnx", "onnxruntime"], "peers": PEERS,
        "bench": [*PEERS, "kornia"], "tpu-compiler": ["libtpu"],
    },
)
