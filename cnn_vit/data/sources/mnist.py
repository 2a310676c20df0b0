"""MNIST: 70,000 handwritten digits of 28x28 gray pixels; downloads 12 MB.

60,000 to train on, 10,000 to test on.
LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998, doi:10.1109/5.726791.
The four files of http://yann.lecun.com/exdb/mnist/, which no longer gives them out, from the copies that TensorFlow and
PyTorch point to. Each sha256 and size as tensorflow_datasets publishes it (url_checksums/mnist.txt), each md5 as
torchvision does.
"""

from functools import partial

from cnn_vit.data.base.parts import SourceData, SourceInfo, SourceOptions
from cnn_vit.data.sources import _published

CLASSES = tuple("0123456789")
SHAPE = _published.MNIST_SHAPE
COUNTS = _published.MNIST_COUNTS
ADDRESSES = ("https://storage.googleapis.com/cvdf-datasets/mnist", "https://ossci-datasets.s3.amazonaws.com/mnist")

remote = partial(_published.mirrored_file, "mnist", ADDRESSES)

FILES = {  # images and labels of each part
    "train": (
        remote(
            "train-images-idx3-ubyte.gz",
            size=9_912_422,
            sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            md5="f68b3c2dcbeaaa9fbdd348bbdeb94873",
        ),
        remote(
            "train-labels-idx1-ubyte.gz",
            size=28_881,
            sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            md5="d53e105ee54ea40749a09fcbcd1e9432",
        ),
    ),
    "test": (
        remote(
            "t10k-images-idx3-ubyte.gz",
            size=1_648_877,
            sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            md5="9fb629c4189551a2d022fa330f9573f3",
        ),
        remote(
            "t10k-labels-idx1-ubyte.gz",
            size=4_542,
            sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            md5="ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
}

REMOTES = _published.list_remotes(FILES)


def about(options: SourceOptions) -> SourceInfo:
    """Returns the classes, the image shape and the counts, which are known without the files."""
    _published.refuse_path_of_published("mnist", options, REMOTES)
    return SourceInfo(CLASSES, len(CLASSES), SHAPE, COUNTS)


def load(options: SourceOptions) -> SourceData:
    """Reads both parts into memory; the examples keep the order of the files.

    Raises:
        UserError: a path is set.
        SurroundingsError: a file cannot be had, or is damaged; the sentence says where to put it.
    """
    _published.refuse_path_of_published("mnist", options, REMOTES)
    parts = _published.read_idx_parts(FILES, COUNTS, SHAPE, classes=len(CLASSES))
    return SourceData(CLASSES, parts, facts=_published.file_facts(REMOTES))
