"""What the built-in tasks and detectors need from elsewhere: pages, licences, files, sizes and checksums.

Every size and checksum here has been published by somebody who has the file; where nobody has published one, it is
left out. Checksums are "algorithm:digits"; fewer digits than the algorithm has are the beginning of it, as in the names
of PyTorch's and OpenMMLab's files, which end in the first eight of their SHA-256.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from cissod_bench.errors import unknown_name


@dataclass(frozen=True)
class Item:
    """A file or a folder of images that a task reads.

    Attributes:
        path: where it goes below the data root.
        size: bytes of a file, None where it is not published.
        folder: whether it is a folder.
        images: number of files in a folder, None where it is not published.
        checksum: of a file, empty where none is published.
        member: name in the archive that brings it; a folder's ends in "/". Empty where it comes as it is.
    """

    path: str
    size: int | None = None
    folder: bool = False
    images: int | None = None
    checksum: str = ""
    member: str = ""


@dataclass(frozen=True)
class Download:
    """A file on a server.

    Attributes:
        url: its address.
        checksum: never empty, since what comes over the network is verified.
        items: what it brings: what is unpacked from a zip archive, or the file itself.
        size: in bytes, None where it is not published.
        unpacked: more bytes than its items have, a limit for what is unpacked; 0 for a file that is no archive.
    """

    url: str
    checksum: str
    items: tuple[Item, ...]
    size: int | None = None
    unpacked: int = 0

    @property
    def name(self) -> str:
        """The name of the file."""
        return PurePosixPath(self.url).name


@dataclass(frozen=True)
class Source:
    """Something that is published in one place.

    Attributes:
        name: its name on the command line.
        title: one line for lists.
        page: where its publishers describe it.
        licence: what may be done with it.
        downloads: what `data fetch` brings.
        by_hand: how to get what it cannot bring, empty where it brings everything.
        items_by_hand: that, where it goes.
    """

    name: str
    title: str
    page: str
    licence: str
    downloads: tuple[Download, ...] = ()
    by_hand: str = ""
    items_by_hand: tuple[Item, ...] = ()

    @property
    def items(self) -> tuple[Item, ...]:
        """All its files and folders."""
        return (*(item for download in self.downloads for item in download.items), *self.items_by_hand)


def _weights(url: str, checksum: str, size: int | None = None) -> tuple[Download, ...]:
    item = Item(f"weights/{PurePosixPath(url).name}", size=size, checksum=checksum)
    return (Download(url, checksum, (item,), size),)


_COCO = "http://images.cocodataset.org"
_GIB = 2**30

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="coco-images",
            title="MS-COCO 2017, images of train and val",
            page="https://cocodataset.org/#download",
            licence="each image under its owner's licence, use under Flickr's terms (https://cocodataset.org/#termsofuse)",
            downloads=(
                Download(
                    f"{_COCO}/zips/train2017.zip",
                    "sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
                    (Item("coco/train2017", folder=True, images=118_287, member="train2017/"),),
                    size=19_336_861_798,
                    unpacked=20 * _GIB,
                ),
                Download(
                    f"{_COCO}/zips/val2017.zip",
                    "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
                    (Item("coco/val2017", folder=True, images=5_000, member="val2017/"),),
                    size=815_585_330,
                    unpacked=1 * _GIB,
                ),
            ),
        ),
        Source(
            name="coco-annotations",
            title="MS-COCO 2017, boxes of train and val",
            page="https://cocodataset.org/#download",
            licence="CC BY 4.0",
            downloads=(
                Download(
                    f"{_COCO}/annotations/annotations_trainval2017.zip",
                    "sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
                    (
                        Item(
                            "coco/annotations/instances_train2017.json",
                            size=469_785_474,
                            checksum="sha256:610fce4944abdeb15354cc765333805529359d12d88f2f711393ca586901d01d",
                            member="annotations/instances_train2017.json",
                        ),
                        Item(
                            "coco/annotations/instances_val2017.json",
                            size=19_987_840,
                            member="annotations/instances_val2017.json",
                        ),
                    ),
                    size=252_907_541,
                    unpacked=1 * _GIB,
                ),
            ),
        ),
        Source(
            name="lvis-annotations",
            title="LVIS v1, boxes of train and val on images of COCO 2017",
            page="https://www.lvisdataset.org/dataset",
            licence="CC BY 4.0, on COCO's images",
            downloads=(
                Download(
                    "https://dl.fbaipublicfiles.com/LVIS/lvis_v1_train.json.zip",
                    "md5:4410d837f71203af226950447ef9d422",
                    (Item("lvis/lvis_v1_train.json", member="lvis_v1_train.json"),),
                    size=350_264_821,
                    unpacked=4 * _GIB,
                ),
                Download(
                    "https://dl.fbaipublicfiles.com/LVIS/lvis_v1_val.json.zip",
                    "md5:87734a7f895990b9552075d7ce723e27",
                    (Item("lvis/lvis_v1_val.json", size=201_235_232, member="lvis_v1_val.json"),),
                    size=64_026_968,
                    unpacked=1 * _GIB,
                ),
            ),
        ),
        Source(
            name="objects365",
            title="Objects365 v2, images and boxes of train and val",
            page="https://www.objects365.org/download.html",
            licence="for academic purposes, images under Flickr's terms; see the page",
            by_hand="Get Objects365 v2 from https://www.objects365.org/download.html once you agree to its terms: "
            "zhiyuan_objv2_train and zhiyuan_objv2_val (JSON), patch0 to patch50 of train, and all patches of val. "
            "Unpack the patches as objects365/train/patchN and objects365/val/patchN. No checksums are published.",
            items_by_hand=(
                Item("objects365/zhiyuan_objv2_train.json"),
                Item("objects365/zhiyuan_objv2_val.json"),
                *(Item(f"objects365/train/patch{number}", folder=True) for number in range(51)),
                Item("objects365/val", folder=True),
            ),
        ),
        Source(
            name="resnet50-caffe",
            title="ResNet-50 of Detectron2 (MSRA's, caffe style, BGR) in mmdet's names, for r50-fpn",
            page="https://mmdetection.readthedocs.io/en/latest/model_zoo.html",
            licence="MSRA's original weights: MIT; mmdetection: Apache-2.0",
            downloads=_weights(
                "https://download.openmmlab.com/pretrain/third_party/resnet50_msra-5891d200.pth",
                "sha256:5891d200",
            ),
        ),
        Source(
            name="resnet50-torchvision",
            title="torchvision's ResNet-50 (IMAGENET1K_V1), for r50-fpn-torchvision",
            page="https://pytorch.org/vision/stable/models/generated/torchvision.models.resnet50.html",
            licence="torchvision: BSD-3-Clause",
            downloads=_weights(
                "https://download.pytorch.org/models/resnet50-0676ba61.pth",
                "sha256:0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
                102_530_333,
            ),
        ),
        Source(
            name="resnet101-torchvision",
            title="torchvision's ResNet-101 (IMAGENET1K_V1), for r101-fpn",
            page="https://pytorch.org/vision/stable/models/generated/torchvision.models.resnet101.html",
            licence="torchvision: BSD-3-Clause",
            downloads=_weights(
                "https://download.pytorch.org/models/resnet101-63fe2227.pth",
                "sha256:63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
            ),
        ),
        Source(
            name="mobilenet-v2",
            title="MobileNetV2 in mmdet's names, for mobilenet-v2-fpn",
            page="https://mmdetection.readthedocs.io/en/latest/model_zoo.html",
            licence="mmdetection: Apache-2.0",
            downloads=_weights(
                "https://download.openmmlab.com/mmdetection/v2.0/third_party/mobilenet_v2_batch256_imagenet-ff34753d.pth",
                "sha256:ff34753d",
            ),
        ),
        Source(
            name="swin-t",
            title="Swin-T trained on ImageNet, for swin-t-fpn",
            page="https://github.com/microsoft/Swin-Transformer",
            licence="MIT",
            by_hand="We know of no published file with Swin-T's ImageNet weights in mmdet's names. mmdet's checkpoints "
            "of detectors on Swin-T hold such a backbone, trained with all labels of COCO: nothing that a result on "
            "COCO or LVIS may start from.",
        ),
    )
}

NEEDS: dict[str, tuple[str, ...]] = {
    "coco-split1": ("coco-images", "coco-annotations"),
    "coco-split2": ("coco-images", "coco-annotations"),
    "coco-o365": ("coco-images", "coco-annotations", "objects365"),
    "lvis": ("coco-images", "lvis-annotations"),
    "shapes": (),
    "shapes-lt": (),
    "r50-fpn": ("resnet50-caffe",),
    "r50-fpn-torchvision": ("resnet50-torchvision",),
    "r101-fpn": ("resnet101-torchvision",),
    "swin-t-fpn": ("swin-t",),
    "mobilenet-v2-fpn": ("mobilenet-v2",),
    "r18-small": (),
    "r18-small-pretrained": (),
    "r18-medium": (),
}
"""Task or detector preset -> sources. Those that need nothing make their data, or train from scratch."""


def find_sources(names: Sequence[str]) -> list[Source]:
    """The sources that some tasks, detectors and sources need, each once; all of them if nothing is named.

    Args:
        names: of tasks, detectors and sources, or one name.

    Raises:
        UserError: an unknown name.
    """
    names = [names] if isinstance(names, str) else names
    if not names:
        return list(SOURCES.values())
    wanted: list[str] = []
    for name in names:
        if name not in NEEDS and name not in SOURCES:
            raise unknown_name("task, detector or source", name, [*NEEDS, *SOURCES])
        wanted += NEEDS.get(name, (name,))
    return [SOURCES[name] for name in dict.fromkeys(wanted)]
