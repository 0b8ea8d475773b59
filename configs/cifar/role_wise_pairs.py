"""Role-wise augmentation in full precision: a large teacher and another, small network.

Claim     with a policy of the student's own (stage beta) II-KD teaches better than without one, and
          than no teacher: WRN-16-2 from WRN-28-10 on CIFAR-100 72.68, 73.79, 74.41, 76.19 %
          (role_wise_kd, Table 4)
Command   python -m launch.study --data_dir=DIR --workdir=runs/role_wise_pairs --config=\\
              configs/cifar/role_wise_pairs.py:pair=wrn_28_10-wrn_16_2
Cost      not measured
Measured  not measured
Args      scale=full|small|tiny, pair=TEACHER-STUDENT (of scale=full; the words of PAIRS)

search_teacher   PBA with the teacher's architecture on reduced CIFAR-10 (spec P5)
teacher          under what was found (stage alpha)
vanilla          the student on crops and flips, taught by nobody
search_alone     PBA with the student's architecture, taught by nobody, on reduced CIFAR-10
alpha            the student under what was found, taught by nobody
kd               crops and flips, taught by `teacher` with II-KD
search           PBA with the student and its teacher's help, on reduced CIFAR-100
beta             under what was found, taught (stage beta)

"After stage alpha" is read as PBA with the student's own architecture: WRN-16-2 has one number
there under two teachers.

Maps of other widths meet by a fixed orthonormal projection of the teacher's, the second way of spec
D13 (the paper is silent), not by its first, a 1x1 convolution that trains with the loss: `clipped`
cuts the networks' gradients alone, and those of KD-SVD and MHGD are of sums and carry 1 / (gap of
singular values). Measured with an untrained ResNet8-tiny from ResNet-8 on digits: on each of the
first 14 batches of 64 the convolutions' gradient was 242 to 48,666 long, the student's below 1. The
first update threw a kernel of length 8 to 393, momentum then to 2,000, and it turned no more.
"""

from ml_collections import ConfigDict

from augjax import defaults, role_wise

TABLE = "role_wise_kd, Table 4"
ROWS = ("vanilla", "alpha", "kd", "beta")
PAIRS = {  # top-1 of ROWS on CIFAR-100
    "wrn_28_10-wrn_16_2": (72.68, 73.79, 74.41, 76.19),
    "wrn_28_10-wrn_16_4": (77.28, 78.01, 79.30, 80.59),
    "wrn_28_10-preresnet56": (71.98, 73.45, 73.04, 74.91),
    "preresnet164-preresnet32": (70.28, 71.68, 70.53, 72.14),
    "pyramidnet_200_240-preresnet44": (71.55, 73.31, 73.00, 73.71),
    "pyramidnet_200_240-wrn_16_2": (72.68, 73.79, 74.64, 75.03),
}
TEACHERS = {"wrn_28_10": 80.73, "preresnet164": 72.24, "pyramidnet_200_240": 84.43}
TOYS = {"small": ("resnet20", "resnet8"), "tiny": ("resnet8_tiny", "resnet8_tiny")}
WORDS = {"scale": tuple(role_wise.SCALES), "pair": tuple(PAIRS)}


def get_config(arg: str = "") -> ConfigDict:
    words = defaults.chosen(arg, WORDS)
    name, pair = words["scale"], words["pair"]
    teacher, student = TOYS.get(name, pair.split("-"))
    dataset = "cifar100" if name == "full" else "cifar10"
    setting = role_wise.Setting(
        role_wise.SCALES[name], dataset, ("f1", "f2", "f3"), project="teacher")
    once = ("search_teacher", "teacher", "search_alone", "search")
    known = {"teacher": TEACHERS.get(teacher), **dict(zip(ROWS, PAIRS[pair]))}
    return defaults.study(
        f"Role-wise augmentation: {student} from {teacher} on {dataset}",
        rows(setting, teacher, student),
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(),
        scale=name, seeds=(0,) if name == "tiny" else (0, 1, 2),
        seeds_of={} if name == "tiny" else dict.fromkeys(once, (0,)),
        data_note="the JPEG copy, where it is that",
        published={row: defaults.published(top1, TABLE) for row, top1 in known.items()}
        if name == "full" else {},
        comparisons=tuple(defaults.comparison(says, TABLE) for says in (
            "beta > kd", "beta > alpha", "kd > vanilla", "alpha > vanilla")))


def rows(setting: role_wise.Setting, teacher: str, student: str) -> dict[str, ConfigDict]:
    """{row: its training or search}, in the order of need."""
    searched, plain = role_wise.searched(), role_wise.plain()

    def search(model, method="", dataset=""):
        return role_wise.search(setting, role_wise.whole(
            setting, model, searched, method, searching=True), dataset)

    def train(model, views, method=""):
        return role_wise.train(setting, student=role_wise.whole(setting, model, views, method))

    return {
        "search_teacher": search(teacher, dataset="cifar10"),
        "teacher": train(teacher, role_wise.replayed(setting, "search_teacher")),
        "vanilla": train(student, plain),
        "search_alone": search(student, dataset="cifar10"),
        "alpha": train(student, role_wise.replayed(setting, "search_alone")),
        "kd": train(student, plain, "ii_kd"),
        "search": search(student, "ii_kd"),
        "beta": train(student, role_wise.replayed(setting, "search"), "ii_kd"),
    }
