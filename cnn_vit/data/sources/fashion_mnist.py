"""Fashion-MNIST: 70,000 gray images of clothes, 28x28 pixels, ten kinds; downloads 31 MB.

Laid out as MNIST is: 60,000 to train on, 10,000 to test on.
Xiao, Rasul and Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms, 2017,
arXiv:1708.07747, under the MIT license. Each md5 as https://github.com/zalandoresearch/fashion-mnist publishes it, each
sha256 and size as tensorflow_datasets does (url_checksums/fashion_mnist.txt).
"""

from functools import partial

from cnn_vit.data.base.parts import SourceData, SourceInfo, SourceOptions
from cnn_vit.data.sources import _published

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
SHAPE = _published.MNIST_SHAPE
COUNTS = _published.MNIST_COUNTS
ADDRESSES = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion",
)

remote = partial(_published.mirrored_file, "fashion_mnist", ADDRESSES)

FILES = {  # images and labels of each part
    "train": (
        remote(
            "train-images-idx3-ubyte.gz",
            size=26_421_880,
            sha256="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            md5="8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        ),
        remote(
            "train-labels-idx1-ubyte.gz",
            size=29_515,
            sha256="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            md5="25c81989df183df01b3e8a0aad5dffbe",
        ),
    ),
    "test": (
        remote(
            "t10k-images-idx3-ubyte.gz",
            size=4_422_102,
            sha256="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            md5="bef4ecab320f06d8554ea6380940ec79",
        ),
        remote(
            "t10k-labels-idx1-ubyte.gz",
            size=5_148,
            sha256="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            md5="bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
}

REMOTES = _published.list_remotes(FILES)


def about(options: SourceOptions) -> SourceInfo:
    """Returns the classes, the image shape and the counts, which are known without the files."""
    _published.refuse_path_of_published("fashion_mnist", options, REMOTES)
    return SourceInfo(CLASSES, len(CLASSES), SHAPE, COUNTS)


def load(options: SourceOptions) -> SourceData:
    """Reads both parts into memory; the examples keep the order of the files.

    Raises:
        UserError: a path is set.
        SurroundingsError: a file cannot be had, or is damaged; the sentence says where to put it.
    """
    _published.refuse_path_of_published("fashion_mnist", options, REMOTES)
    parts = _published.read_idx_parts(FILES, COUNTS, SHAPE, classes=len(CLASSES))
    return SourceData(CLASSES, parts, facts=_published.file_facts(REMOTES))
