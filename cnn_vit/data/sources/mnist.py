"""MNIST: 70,000 handwritten digits of 28x28 gray pixels; downloads 12 MB.

60,000 to train on, 10,000 to test on.
LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998, doi:10.1109/5.726791.
The four files of http://yann.lecun.com/exdb/mnist/, which no longer gives them out, from the copies that TensorFlow and
PyTorch point to. Each sha256 and size as tensorflow_datasets publishes it (url_checksums/mnist.txt), each md5 as
torchvision does.
"""

from cnn_vit.data.base.parts import SourceData, SourceInfo, SourceOptions
from cnn_vit.data.sources._published import file_facts, idx_parts, without_path
from cnn_vit.files.downloads import Remote

CLASSES = tuple("0123456789")
SHAPE = (28, 28, 1)
COUNTS = {"train": 60_000, "test": 10_000}
PLACES = ("https://storage.googleapis.com/cvdf-datasets/mnist", "https://ossci-datasets.s3.amazonaws.com/mnist")


def remote(name: str, size: int, sha256: str, md5: str) -> Remote:
    """One of the files."""
    return Remote(tuple(f"{place}/{name}" for place in PLACES), f"data/mnist/{name}", size, sha256, md5)


FILES = {  # images and labels of each part
    "train": (
        remote(
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        ),
        remote(
            "train-labels-idx1-ubyte.gz",
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "d53e105ee54ea40749a09fcbcd1e9432",
        ),
    ),
    "test": (
        remote(
            "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "9fb629c4189551a2d022fa330f9573f3",
        ),
        remote(
            "t10k-labels-idx1-ubyte.gz",
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
}

REMOTES = [one for pair in FILES.values() for one in pair]


def about(given: SourceOptions) -> SourceInfo:
    """Classes, image shape and counts."""
    without_path("mnist", given, REMOTES)
    return SourceInfo(CLASSES, len(CLASSES), SHAPE, COUNTS)


def load(given: SourceOptions) -> SourceData:
    """Both parts, in memory, in the order of the files.

    Raises:
        SurroundingsError: a file cannot be had, or is damaged; the sentence says where to put it.
    """
    without_path("mnist", given, REMOTES)
    return SourceData(CLASSES, idx_parts(FILES, COUNTS, SHAPE, classes=len(CLASSES)), facts=file_facts(REMOTES))
