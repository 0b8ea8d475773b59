"""From images as people have them to the folders that `augjax.data` and TFDS read.

>>> from augjax.prepare import prepare
>>> folder = prepare("cifar-10-python.tar.gz", "data")    # data/cifar10/3.0.2

A source is recognised (`source_kinds`) and listed as an `image_sets.ImageSet` (`image_layouts` over
`image_places`, `tfrecords`); workers write its shards (`shard_files`), and the folder gets its name
when it is whole (`target_folder`). CIFAR's archives are read at once (`archives`, `cifar_sets`).
"""

from augjax.prepare.whole import prepare

__all__ = ["prepare"]
